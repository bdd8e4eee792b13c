/** The list of orders, by all criteria of the API. */
import { call, send } from "@shared/api/client";
import type { FoundOrder, OrderStatus } from "@shared/api/contract";
import { SelectField, TextField } from "@shared/components/form";
import { dateTime, money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import { has } from "./access";
import { Filters, useQuery } from "./filters";
import { Download, PageLinks, Shown, Status, Table } from "./parts";
import { say } from "./sentences";

type Query = Record<string, string> & { status?: OrderStatus };

const PATH = "/orders";
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

export function Orders() {
  const query = useQuery<Query>();
  const orders = useLoaded(
    (signal) => send("GET /admin/orders", { query, signal }),
    [JSON.stringify(query)],
  );
  return (
    <div class="stack">
      <h1>{say("orders")}</h1>
      <OrderFilters query={query} />
      <Shown of={orders}>
        {({ data: { orders: found, total }, next }) => (
          <>
            <div class="row between">
              <p class="muted" role="status">
                {say(total.exact ? "found" : "atLeast", { count: number(total.count) })}
              </p>
              <Download name="orders.csv" load={() => exported(query)} />
            </div>
            <div class="card"><OrderTable of={found} /></div>
            <PageLinks path={PATH} query={query} next={next} />
          </>
        )}
      </Shown>
    </div>
  );
}

export function OrderTable({ of }: { of: readonly FoundOrder[] }) {
  return (
    <Table
      of={of}
      label={say("orders")}
      empty="none"
      id={(order) => order.id}
      columns={[
        { label: "order", cell: (row) => <OrderLink id={row.id} /> },
        { label: "status", cell: (row) => <Status of={row.status} /> },
        { label: "customer", cell: (row) => <CustomerLink id={row.userId} /> },
        { label: "total", number: true, cell: (row) => money(row.totalAmount, row.currency) },
        { label: "placed", cell: (row) => dateTime(row.createdAt) },
      ]}
    />
  );
}

/** Administrators read customers, but not the orders themselves. */
function OrderLink({ id }: { id: string }) {
  return has("admin") ? <span class="mono">{id}</span> : <a class="mono" href={href(`/orders/${id}`)}>{id}</a>;
}

/** The customer for support, which reads it; the customer's orders for the others. */
export function CustomerLink({ id }: { id: number }) {
  const target = has("support", "admin") ? href(`/customers/${id}`) : href(PATH, { userId: id });
  return <a href={target}>{id}</a>;
}

function OrderFilters({ query }: { query: Query }) {
  const text = (name: (typeof FILTERS)[number]) => ({ name, label: say(name), value: query[name] ?? "" });
  return (
    <Filters path={PATH} names={FILTERS}>
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
    </Filters>
  );
}

/** The orders of all pages. */
function exported({ cursor: _, limit: __, ...query }: Query): Promise<unknown> {
  return call("GET /admin/orders.csv", { query: { ...query, bom: "true" } });
}
