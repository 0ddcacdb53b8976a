/** Work that is repeated while the page is visible. */
import { useEffect } from "preact/hooks";

export const INTERVAL = 2000; // milliseconds

/** Calls `work` now and at every interval, never twice at once, until it is given anew or the page is closed. */
export function usePolling(work: (isCurrent: () => boolean) => Promise<void>, inputs: unknown[]) {
  useEffect(() => {
    let current = true, running = false;
    const turn = async () => {
      if (running || document.visibilityState === "hidden") return;
      running = true;
      await work(() => current);
      running = false;
    };
    void turn();
    const timer = setInterval(turn, INTERVAL);
    document.addEventListener("visibilitychange", turn);
    return () => {
      current = false;
      clearInterval(timer);
      document.removeEventListener("visibilitychange", turn);
    };
  }, inputs);
}
