/** Data of a page: loading, then data or an error, loaded again on request. */
import { useEffect, useRef, useState } from "preact/hooks";

export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  isLoading: boolean;
  reload: () => void;
  set: (data: T) => void;
}

/** Runs `fetch` when a value in `when` changes; the data of before stays until there is new. */
export function useLoaded<T>(
  fetch: (signal: AbortSignal) => Promise<T>,
  when: readonly unknown[],
): Loaded<T> {
  const [state, change] = useState<{ data?: T; error?: unknown; isLoading: boolean }>({
    isLoading: true,
  });
  const [count, reloaded] = useState(0);
  const latest = useRef(fetch);
  latest.current = fetch;
  useEffect(() => {
    const controller = new AbortController();
    change((before) => ({ ...before, error: undefined, isLoading: true }));
    latest.current(controller.signal).then(
      (data) => controller.signal.aborted || change({ data, isLoading: false }),
      (error: unknown) =>
        controller.signal.aborted || change((before) => ({ ...before, error, isLoading: false })),
    );
    return () => controller.abort();
  }, [...when, count]);
  return {
    data: state.data,
    error: state.error,
    isLoading: state.isLoading,
    reload: () => reloaded((before) => before + 1),
    set: (data) => change({ data, isLoading: false }),
  };
}
