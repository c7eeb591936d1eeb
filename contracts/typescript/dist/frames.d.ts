/** Work that is done once for each frame that the browser paints, however often it is asked for. */
/** Do something at the next frame; asked for twice before that, it is done once. */
export declare function atNextFrame(work: () => void): void;
