/** Storage of a client's cursor. */
/**
 * Return a store in this tab's `sessionStorage`, so that the cursor survives a reload of the page. If storage
 * is disabled or full, the cursor lasts as long as the page.
 *
 * @param key unique for each feed that the page follows
 */
export function sessionCursors(key) {
    const name = `tickertape.cursor.${key}`;
    return {
        load: () => sessionStorage.getItem(name),
        save: (cursor) => sessionStorage.setItem(name, cursor),
    };
}
const CURSOR = /^[0-9a-z]{1,16}-\d{1,20}(-\d{1,19})?$/;
/** Load a cursor; return null if the store is empty, fails or holds no valid cursor. */
export async function loadCursor(store) {
    try {
        const stored = await store?.load();
        return stored && CURSOR.test(stored) ? stored : null;
    }
    catch {
        return null;
    }
}
/** Save a cursor; errors of the store are ignored, since the client keeps the cursor in memory anyway. */
export function saveCursor(store, cursor) {
    try {
        Promise.resolve(store?.save(cursor)).catch(() => { });
    }
    catch {
        // A store may also throw instead of rejecting.
    }
}
