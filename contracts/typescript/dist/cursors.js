/** Where a client keeps its place: in memory unless it is told otherwise. */
/**
 * A place that survives a reload of the page, kept in this tab's `sessionStorage`; where that is off or full,
 * the place lasts as long as the page.
 *
 * @param key one for each feed that the page follows
 */
export function sessionCursors(key) {
    const name = `tickertape.cursor.${key}`;
    return {
        load: () => sessionStorage.getItem(name),
        save: (cursor) => sessionStorage.setItem(name, cursor),
    };
}
const CURSOR = /^[0-9a-z]{1,16}-\d{1,20}(-\d{1,19})?$/;
/** What a store kept; null where it has nothing, or nothing that is a cursor, or fails. */
export async function loadCursor(store) {
    try {
        const kept = await store?.load();
        return kept && CURSOR.test(kept) ? kept : null;
    }
    catch {
        return null;
    }
}
/** Keep a place if it can be kept: one that cannot is no reason to stop. */
export function saveCursor(store, cursor) {
    try {
        Promise.resolve(store?.save(cursor)).catch(() => { });
    }
    catch {
        // As said.
    }
}
