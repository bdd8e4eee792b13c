/** Between the texts of fields and the values of the API. */

/** The number in a field; undefined for an empty one. */
export function numberOf(text: string | undefined): number | undefined {
  return text ? Number(text) : undefined;
}

/** The moment that a field of the browser's time zone names, as RFC 3339; undefined for none. */
export function momentOf(text: string | undefined): string | undefined {
  return text ? new Date(text).toISOString() : undefined;
}

/** A moment as a field of the browser's time zone shows it. */
export function localMoment(iso: string | null | undefined): string {
  if (!iso) return "";
  const time = new Date(iso);
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** The properties whose values differ from those of before. */
export function changesOf<T extends object>(before: T, after: T): Partial<T> {
  const changed = Object.entries(after).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name as keyof T]),
  );
  return Object.fromEntries(changed) as Partial<T>;
}
