/** One order with everything that refers to it, and the actions of support and staff. */
import { call } from "@shared/api/client";
import type { OrderRecords } from "@shared/api/contract";
import { dateTime, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import { has } from "./access";
import { Notes } from "./notes";
import { actionsOf, actionsOfReturn, actionsOfShipment, nameOf } from "./order-actions";
import { CustomerLink } from "./orders";
import { Actions, Section, Shown, Status, Table } from "./parts";
import { say } from "./sentences";

interface Part {
  of: OrderRecords;
  changed: () => void;
}

export function OrderPage({ id }: { id: string }) {
  const order = useLoaded(
    (signal) => call("GET /admin/orders/{orderId}", { path: { orderId: id }, signal }),
    [id],
  );
  return <Shown of={order}>{(found) => <Records of={found} changed={order.reload} />}</Shown>;
}

function Records({ of, changed }: Part) {
  return (
    <div class="stack">
      <a href={href("/orders")}>← {say("back")}</a>
      <div class="row between">
        <h1 class="row"><span class="mono id">{of.id}</span> <Status of={of.status} /></h1>
        <Actions of={actionsOf(of)} done={changed} />
      </div>
      <div class="halves">
        <div class="stack">
          <Facts of={of} />
          <Lines of={of} />
          <PriceLines of={of} />
          <Money of={of} />
          {has("finance") && <Postings of={of} />}
          <Shipments of={of} changed={changed} />
          <Returns of={of} changed={changed} />
        </div>
        <div class="stack">
          <History of={of} />
          <Notes about={{ order: of.id }} of={of.notes} changed={changed} />
          <Events of={of} />
        </div>
      </div>
    </div>
  );
}

function Facts({ of }: { of: OrderRecords }) {
  const address = of.shippingAddress;
  return (
    <Section title={say("order")}>
      <dl class="facts">
        <dt>{say("customer")}</dt><dd><CustomerLink id={of.userId} /></dd>
        <dt>{say("total")}</dt><dd>{money(of.totalAmount, of.currency)}</dd>
        <dt>{say("method")}</dt><dd>{of.paymentMethod}</dd>
        <dt>{say("placed")}</dt><dd>{dateTime(of.createdAt)}</dd>
        {of.status === "PENDING" && <><dt>{say("expires")}</dt><dd>{dateTime(of.expiresAt)}</dd></>}
        {of.reason && <><dt>{say("reason")}</dt><dd>{of.reason}</dd></>}
        {address && (
          <>
            <dt>{say("address")}</dt>
            <dd>
              {[address.recipient, address.phone, address.line1, address.line2, address.city,
                address.region, address.postcode, address.country].filter(Boolean).join(", ")}
            </dd>
          </>
        )}
      </dl>
    </Section>
  );
}

function Lines({ of }: { of: OrderRecords }) {
  return (
    <Section title={say("lines")}>
      <Table
        of={of.items}
        label={say("lines")}
        id={(line) => line.productId}
        columns={[
          { label: "product", cell: (line) => line.productName },
          { label: "quantity", number: true, cell: (line) => line.quantity },
          { label: "price", number: true, cell: (line) => money(line.unitPrice, of.currency) },
          { label: "amount", number: true, cell: (line) => money(line.lineAmount, of.currency) },
        ]}
      />
    </Section>
  );
}

function PriceLines({ of }: { of: OrderRecords }) {
  return (
    <Section title={say("priceLines")}>
      <Table
        of={of.priceLines}
        label={say("priceLines")}
        id={(line) => `${line.kind} ${line.productId}`}
        columns={[
          { label: "kind", cell: (line) => say(line.kind) },
          { label: "product", cell: (line) => line.productId !== null && nameOf(of, line.productId) },
          { label: "amount", number: true, cell: (line) => money(line.amount, of.currency) },
          {
            label: "vat",
            number: true,
            cell: (line) => line.vatAmount !== null && money(line.vatAmount, of.currency),
          },
        ]}
      />
    </Section>
  );
}

function Money({ of }: { of: OrderRecords }) {
  const rows = [
    ...of.payments.map((each) => ({ ...each, what: say("payments"), text: each.paymentMethod })),
    ...of.refunds.map((each) => ({ ...each, what: say("refunds"), text: each.reason })),
    ...of.disputes.map((each) => ({ ...each, what: say("disputes"), text: each.providerReference })),
  ];
  return (
    <Section title={[say("payments"), say("refunds"), say("disputes")].join(" · ")}>
      {rows.length === 0 && <p class="muted">{say("empty")}</p>}
      <ul class="rows">
        {rows.map((row) => (
          <li key={row.id}>
            <span>{row.what}</span><Status of={row.status} />
            <span class="number">{money(row.amount, row.currency)}</span>
            <span class="muted small">{row.text}</span>
            <time class="muted small">{dateTime(row.createdAt)}</time>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Postings({ of }: { of: OrderRecords }) {
  return (
    <Section title={say("postings")}>
      <Table
        of={of.postings}
        label={say("postings")}
        id={(row) => row.seq}
        columns={[
          { label: "at", cell: (row) => dateTime(row.postedAt) },
          { label: "kind", cell: (row) => row.kind },
          { label: "accounts", cell: (row) => `${row.debit} → ${row.credit}` },
          { label: "amount", number: true, cell: (row) => money(row.amount, row.currency) },
          { label: "settledOn", cell: (row) => row.settledOn ?? "" },
        ]}
      />
    </Section>
  );
}

function Shipments({ of, changed }: Part) {
  return (
    <Section title={say("shipments")}>
      {of.shipments.length === 0 && <p class="muted">{say("empty")}</p>}
      <ul class="rows">
        {of.shipments.map((shipment) => (
          <li key={shipment.id}>
            <Status of={shipment.status} />
            <span>{goods(of, shipment.items)}</span>
            <span class="muted small">{[shipment.carrier, shipment.trackingNumber].filter(Boolean).join(" ")}</span>
            <Actions of={actionsOfShipment(of, shipment)} done={changed} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Returns({ of, changed }: Part) {
  return (
    <Section title={say("returns")}>
      {of.returns.length === 0 && <p class="muted">{say("empty")}</p>}
      <ul class="rows">
        {of.returns.map((row) => (
          <li key={row.id}>
            <Status of={row.status} />
            <span>{goods(of, row.items)}</span>
            <span class="muted small">{row.reason}</span>
            <Actions of={actionsOfReturn(of, row)} done={changed} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

function goods(of: OrderRecords, items: readonly { productId: number; quantity: number }[]): string {
  return items.map((each) => `${nameOf(of, each.productId)} × ${each.quantity}`).join(", ");
}

function History({ of }: { of: OrderRecords }) {
  return (
    <Section title={say("history")}>
      <ol class="history">
        {of.statusHistory.map((each, index) => (
          <li key={index}>
            <time class="muted small">{dateTime(each.at)}</time>
            <span>
              {each.entity}: {each.from !== "-" && `${each.from} → `}<strong>{each.to}</strong>
              <span class="muted small"> {each.actor}</span>
            </span>
          </li>
        ))}
      </ol>
    </Section>
  );
}

function Events({ of }: { of: OrderRecords }) {
  return (
    <Section title={say("events")}>
      <ul class="rows">
        {of.events.map((event) => (
          <li key={event.id}>
            <span class="mono small">{event.type}</span>
            <span class="muted small">
              {event.deliveries.map((each) => `${each.consumer}${each.receivedAt ? " ✓" : " …"}`).join(", ")}
            </span>
            <time class="muted small">{dateTime(event.createdAt)}</time>
          </li>
        ))}
      </ul>
    </Section>
  );
}
