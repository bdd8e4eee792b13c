/** The list of orders: filters and page are in the address, so that it can be kept and sent. */
import { call, type QueryOf, send } from "@shared/api/client";
import type { OrderStatus } from "@shared/api/contract";
import { Badge, Button, ErrorNotice, Loading, type Tone } from "@shared/components/basic";
import { SelectField, TextField } from "@shared/components/form";
import { dateTime, money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href, place } from "@shared/router";
import type { TargetedEvent } from "preact";
import { say } from "./sentences";

type Query = NonNullable<QueryOf<"GET /admin/orders">>;

const STATUSES: readonly OrderStatus[] = ["PENDING", "PAID", "REFUNDED", "CANCELLING", "CANCELLED"];
const FILTERS = [
  "id",
  "userId",
  "email",
  "productId",
  "status",
  "fromDay",
  "toDay",
  "minTotal",
  "maxTotal",
] as const;
const TONES: Record<string, Tone> = {
  PENDING: "info",
  PAID: "good",
  CANCELLING: "warn",
  CAPTURED: "good",
  SUCCEEDED: "good",
  UNKNOWN: "warn",
  DECLINED: "bad",
  REJECTED: "bad",
  DELIVERED: "good",
  SHIPPED: "info",
  REQUESTED: "warn",
};

export function Status({ of }: { of: string }) {
  return <Badge tone={TONES[of] ?? "neutral"}>{of}</Badge>;
}

export function Orders() {
  const query = Object.fromEntries(place.value.query) as Query;
  const orders = useLoaded(
    (signal) => send("GET /admin/orders", { query, signal }),
    [place.value.query.toString()],
  );
  const found = orders.data?.data;
  return (
    <div class="stack">
      <h1>{say("orders")}</h1>
      <Filters query={query} />
      {orders.error !== undefined && <ErrorNotice error={orders.error} retry={orders.reload} />}
      {!found && orders.isLoading && <Loading />}
      {found && (
        <div class="row between">
          <p class="muted" role="status">
            {say(found.total.exact ? "found" : "atLeast", { count: number(found.total.count) })}
          </p>
          <Button kind="quiet" onClick={() => void download(query)}>{say("csv")}</Button>
        </div>
      )}
      {found && found.orders.length === 0 && <p class="card muted">{say("none")}</p>}
      {found && found.orders.length > 0 && (
        <div class="card table" aria-busy={orders.isLoading}>
          <table>
            <thead>
              <tr>
                <th>{say("order")}</th><th>{say("status")}</th><th>{say("customer")}</th>
                <th class="number">{say("total")}</th><th>{say("placed")}</th>
              </tr>
            </thead>
            <tbody>
              {found.orders.map((order) => (
                <tr key={order.id}>
                  <td><a class="mono" href={href(`/orders/${order.id}`)}>{order.id}</a></td>
                  <td><Status of={order.status} /></td>
                  <td><a href={href("/", { userId: order.userId })}>{order.userId}</a></td>
                  <td class="number">{money(order.totalAmount, order.currency)}</td>
                  <td>{dateTime(order.createdAt)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <nav class="actions" aria-label={say("orders")}>
        {query.cursor && (
          <a class="button" href={href("/", { ...query, cursor: undefined })}>{say("firstPage")}</a>
        )}
        {orders.data?.next && (
          <a class="button" href={href("/", { ...query, cursor: orders.data.next })}>
            {say("nextPage")}
          </a>
        )}
      </nav>
    </div>
  );
}

function Filters({ query }: { query: Query }) {
  const onSubmit = (event: TargetedEvent<HTMLFormElement>) => {
    event.preventDefault();
    const data = new FormData(event.currentTarget);
    go(href("/", Object.fromEntries(FILTERS.map((name) => [name, String(data.get(name)).trim()]))));
  };
  const text = (name: (typeof FILTERS)[number]) => ({
    name,
    label: say(name),
    value: String(query[name] ?? ""),
  });
  return (
    <form class="card filters" onSubmit={onSubmit} key={place.value.query.toString()}>
      <TextField {...text("id")} />
      <SelectField name="status" label={say("status")} value={query.status ?? ""}>
        <option value="">{say("any")}</option>
        {STATUSES.map((each) => <option key={each} value={each}>{each}</option>)}
      </SelectField>
      <TextField {...text("email")} type="email" />
      <TextField {...text("userId")} inputMode="numeric" />
      <TextField {...text("productId")} inputMode="numeric" />
      <TextField {...text("fromDay")} type="date" />
      <TextField {...text("toDay")} type="date" />
      <TextField {...text("minTotal")} inputMode="numeric" />
      <TextField {...text("maxTotal")} inputMode="numeric" />
      <div class="actions">
        <Button type="submit" kind="primary" icon="search">{say("search")}</Button>
        <a class="button quiet" href={href("/")}>{say("clear")}</a>
      </div>
    </form>
  );
}

/** The orders of all pages; the access token is in a header, so a link cannot get them. */
async function download({ cursor: _, limit: __, ...query }: Query): Promise<void> {
  const text = await call("GET /admin/orders.csv", { query: { ...query, bom: "true" } });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([String(text)], { type: "text/csv" }));
  link.download = "orders.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
