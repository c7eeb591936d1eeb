/** Connection state of a client. */
/** Interval at which the progress of a session that catches up is checked, in milliseconds. */
export const POLL_MS = 250;
/**
 * Detector for the moment when a session that started in the past reaches the present.
 *
 * The relay does not report that moment, so it is inferred from the timestamps of the events: in the past they
 * advance much faster than real time, in the present just as fast. Only differences are compared, never clocks.
 */
export class CatchUp {
    #newest = -Infinity;
    #previous = -Infinity;
    /** Record the timestamps of received events; `now` is a monotonic time in milliseconds. */
    observe(timestamps, now) {
        for (const timestamp of timestamps) {
            const ahead = Date.parse(timestamp) - now;
            if (ahead > this.#newest)
                this.#newest = ahead;
        }
    }
    /** Return whether the events have advanced little or not at all since the last call; called every `POLL_MS`. */
    caughtUp() {
        const advance = this.#newest - this.#previous;
        this.#previous = this.#newest;
        return !(advance > POLL_MS);
    }
}
