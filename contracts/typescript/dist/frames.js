/** Work that is done once for each frame that the browser paints, however often it is asked for. */
/** Between two such moments where nothing is painted: in a hidden tab, and outside of browsers. */
const HIDDEN_MS = 250;
const due = new Set();
/** Do something at the next frame; asked for twice before that, it is done once. */
export function atNextFrame(work) {
    due.add(work);
    if (due.size > 1)
        return;
    if (globalThis.document?.visibilityState === "visible")
        requestAnimationFrame(run);
    else
        setTimeout(run, HIDDEN_MS);
}
function run() {
    const now = [...due];
    due.clear();
    for (const work of now)
        work();
}
