/** How a client stands with its relay. */
/** Milliseconds between two looks at how far a session has caught up. */
export const LOOK_MS = 250;
/**
 * Tells when a session that began in the past has reached the present.
 *
 * The relay does not say, so this looks at how fast the events' own times pass: in the past much faster than
 * time does, in the present as fast. Clocks are never compared, only how they move.
 */
export class CatchUp {
    #newest = -Infinity;
    #before = -Infinity;
    /** Events came. `now` is of a clock that never jumps. */
    saw(timestamps, now) {
        for (const timestamp of timestamps) {
            const ahead = Date.parse(timestamp) - now;
            if (ahead > this.#newest)
                this.#newest = ahead;
        }
    }
    /** True when little or nothing passed since the last call; called every `LOOK_MS`. */
    reached() {
        const passed = this.#newest - this.#before;
        this.#before = this.#newest;
        return !(passed > LOOK_MS);
    }
}
