/** Callbacks that run at most once per animation frame, however often they are scheduled. */
/** Schedule a callback for the next frame; scheduled twice before it, it runs once. */
export declare function atNextFrame(callback: () => void): void;
