/** Filters of a list: they are in the address, so that a view can be kept and sent. */
import { Button } from "@shared/components/basic";
import { go, href, place } from "@shared/router";
import type { ComponentChildren, TargetedEvent } from "preact";
import { say } from "./sentences";

/** The parameters of the address. */
export function useQuery<Q extends object = Record<string, string>>(): Q {
  return Object.fromEntries(place.value.query) as Q;
}

export function Filters({
  path,
  names,
  children,
}: {
  path: string;
  names: readonly string[];
  children: ComponentChildren;
}) {
  const onSubmit = (event: TargetedEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    const given = names.map((name) => [name, String(data.get(name) ?? "").trim()]);
    go(href(path, Object.fromEntries(given) as Record<string, string>));
  };
  return (
    <form class="card filters" role="search" onSubmit={onSubmit} key={place.value.query.toString()}>
      {children}
      <div class="actions">
        <Button type="submit" kind="primary" icon="search">{say("search")}</Button>
        <a class="button quiet" href={href(path)}>{say("clear")}</a>
      </div>
    </form>
  );
}
