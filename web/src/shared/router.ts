/**
 * The page that is shown, from the fragment of the address: `#/products/7?sort=price`.
 *
 * Paths belong to the API, so pages are below `#`: no page can collide with a route, and an edge
 * needs no rule for them (docs/adr).
 */
import { computed, signal } from "@preact/signals";

const fragment = signal(read());
addEventListener("hashchange", () => (fragment.value = read()));

function read(): string {
  return location.hash.startsWith("#/") ? location.hash.slice(1) : "/";
}

export interface Place {
  path: string;
  segments: string[];
  query: URLSearchParams;
}

export const place = computed<Place>(() => {
  const [path = "/", query = ""] = fragment.value.split("?", 2);
  const segments = path.split("/").filter(Boolean).map(decoded);
  return { path, segments, query: new URLSearchParams(query) };
});

function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** The address of a page; parameters without a value are left out. */
export function href(path: string, query: Record<string, string | number | undefined> = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const parameters = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return parameters.size ? `#${path}?${parameters}` : `#${path}`;
}

export function go(target: string, how: "push" | "replace" = "push"): void {
  if (how === "replace") {
    history.replaceState(null, "", target);
    fragment.value = read();
  } else location.hash = target;
}
