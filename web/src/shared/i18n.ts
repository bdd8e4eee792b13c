/** Language, sentences, and the forms of money, dates and numbers. */
import { effect, signal } from "@preact/signals";
import { configure } from "./api/client";

export const LANGUAGES = { ko: "한국어", en: "English" } as const;
export type Language = keyof typeof LANGUAGES;

const KEY = "language";

function preferred(): Language {
  const kept = localStorage.getItem(KEY);
  if (kept === "ko" || kept === "en") return kept;
  const first = navigator.languages.find((each) => /^(ko|en)\b/.test(each));
  return first?.startsWith("en") ? "en" : "ko";
}

export const language = signal<Language>(preferred());

effect(() => {
  configure({ language: language.value });
  document.documentElement.lang = language.value;
});

export function chooseLanguage(chosen: Language): void {
  localStorage.setItem(KEY, chosen);
  language.value = chosen;
}

type Values = Record<string, string | number>;

/** A function that gives a sentence of a dictionary in the present language. */
export function sentences<K extends string>(
  dictionary: Record<Language, Record<K, string>>,
): (key: K, values?: Values) => string {
  return (key, values) => {
    const text = dictionary[language.value][key];
    return values ? text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name])) : text;
  };
}

const cache = new Map<string, Intl.NumberFormat | Intl.DateTimeFormat>();

function format<T extends Intl.NumberFormat | Intl.DateTimeFormat>(
  kind: string,
  make: (locale: string) => T,
): T {
  const key = `${language.value} ${kind}`;
  let found = cache.get(key) as T | undefined;
  if (found === undefined) cache.set(key, (found = make(language.value)));
  return found;
}

/** An amount in the minor unit of its currency. */
export function money(amount: number, currency: string): string {
  const formatted = format(
    currency,
    (locale) => new Intl.NumberFormat(locale, { style: "currency", currency }),
  );
  const digits = formatted.resolvedOptions().maximumFractionDigits ?? 0;
  return formatted.format(amount / 10 ** digits);
}

export function number(value: number): string {
  return format("number", (locale) => new Intl.NumberFormat(locale)).format(value);
}

export function dateTime(iso: string): string {
  const style = { dateStyle: "medium", timeStyle: "short" } as const;
  return format("dateTime", (locale) => new Intl.DateTimeFormat(locale, style)).format(
    new Date(iso),
  );
}

export function date(iso: string): string {
  return format("date", (locale) => new Intl.DateTimeFormat(locale, { dateStyle: "medium" })).format(
    new Date(iso),
  );
}
