/** One order with everything that refers to it, and the actions of support and staff. */
import { call } from "@shared/api/client";
import type { OrderRecords, ReturnRecord, Shipment } from "@shared/api/contract";
import { submit } from "@shared/api/submissions";
import { Button, ErrorNotice, Loading } from "@shared/components/basic";
import { Dialog } from "@shared/components/dialog";
import { Form, SelectField, TextArea, TextField, useSending } from "@shared/components/form";
import { announce } from "@shared/components/frame";
import { dateTime, money } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { has } from "./access";
import { Status } from "./orders";
import { say } from "./sentences";

type Values = Record<string, string>;
type Sentence = Parameters<typeof say>[0];

/** What an operator may do: a confirmation with its fields, then one request. */
interface Action {
  name: string;
  label: Sentence;
  confirmation: Sentence;
  danger?: boolean;
  fields?: ComponentChildren;
  send: (values: Values, idempotencyKey: string) => Promise<unknown>;
}

export function OrderPage({ id }: { id: string }) {
  const order = useLoaded(
    (signal) => call("GET /admin/orders/{orderId}", { path: { orderId: id }, signal }),
    [id],
  );
  const [action, choose] = useState<Action | null>(null);
  if (!order.data) {
    return order.error !== undefined
      ? <ErrorNotice error={order.error} retry={order.reload} />
      : <Loading />;
  }
  const shown = order.data;
  const done = () => {
    choose(null);
    announce(say("done"));
    order.reload();
  };
  return (
    <div class="stack">
      <a href={href("/")}>← {say("back")}</a>
      <div class="row between">
        <h1 class="row"><span class="mono id">{shown.id}</span> <Status of={shown.status} /></h1>
        <div class="actions">
          {actionsOf(shown).map((each) => (
            <ActionButton key={each.name} of={each} choose={choose} />
          ))}
        </div>
      </div>
      <div class="halves">
        <div class="stack">
          <Facts of={shown} />
          <Lines of={shown} />
          <Money of={shown} />
          <Shipments of={shown} choose={choose} />
          <Returns of={shown} choose={choose} />
        </div>
        <div class="stack">
          <History of={shown} />
          <Notes of={shown} changed={order.reload} />
          <Events of={shown} />
        </div>
      </div>
      {action && <Confirmation of={action} onClose={() => choose(null)} onDone={done} />}
    </div>
  );
}

function ActionButton({ of, choose }: { of: Action; choose: (action: Action) => void }) {
  return (
    <Button kind={of.danger ? "danger" : "secondary"} onClick={() => choose(of)}>
      {say(of.label)}
    </Button>
  );
}

function Confirmation({
  of,
  onClose,
  onDone,
}: {
  of: Action;
  onClose: () => void;
  onDone: () => void;
}) {
  const sending = useSending();
  const onSend = async (values: Values) => {
    await submit(of.name, values, (key) => of.send(values, key));
    onDone();
  };
  return (
    <Dialog title={say(of.label)} onClose={onClose}>
      <p>{say(of.confirmation)}</p>
      <Form sending={sending} label={say(of.label)} kind={of.danger ? "danger" : "primary"} onSend={onSend}>
        {of.fields}
      </Form>
    </Dialog>
  );
}

/** The actions on the order itself that the account's role has. */
function actionsOf(order: OrderRecords): Action[] {
  const path = { orderId: order.id };
  const found: Action[] = [];
  if (has("support") && (order.status === "PENDING" || order.status === "PAID")) {
    found.push({
      name: `cancel ${order.id}`,
      label: "cancelOrder",
      confirmation: "confirmCancel",
      danger: true,
      fields: <TextArea name="reason" label={say("reason")} maxLength={200} required />,
      send: ({ reason = "" }, idempotencyKey) =>
        call("PATCH /admin/orders/{orderId}/cancel", { path, body: { reason }, idempotencyKey }),
    });
  }
  if (has("support") && order.payments.some((each) => each.status === "CAPTURED")) {
    found.push({
      name: `refund ${order.id}`,
      label: "refund",
      confirmation: "confirmRefund",
      danger: true,
      fields: <RefundFields order={order} />,
      send: (values, idempotencyKey) =>
        call("POST /orders/{orderId}/refunds", { path, body: refundOf(values), idempotencyKey }),
    });
  }
  if (has("staff") && order.status === "PAID") {
    found.push({
      name: `ship ${order.id}`,
      label: "ship",
      confirmation: "confirmShip",
      send: (_, idempotencyKey) =>
        call("POST /admin/orders/{orderId}/shipments", { path, body: {}, idempotencyKey }),
    });
  }
  return found;
}

function RefundFields({ order }: { order: OrderRecords }) {
  return (
    <>
      <TextField name="amount" label={`${say("amount")} (${order.currency})`} inputMode="numeric" pattern="[0-9]+" required />
      <TextArea name="reason" label={say("reason")} maxLength={200} required />
      <SelectField name="means" label={say("means")} value="PROVIDER">
        {(["PROVIDER", "OTHER_MEANS", "WRITE_OFF"] as const).map((each) => (
          <option key={each} value={each}>{say(each)}</option>
        ))}
      </SelectField>
      <TextField name="reference" label={say("reference")} maxLength={100} />
      <label class="row"><input type="checkbox" name="restock" value="true" /> {say("restock")}</label>
    </>
  );
}

function refundOf(values: Values) {
  const means = values.means as "PROVIDER" | "OTHER_MEANS" | "WRITE_OFF";
  return {
    amount: Number(values.amount),
    reason: values.reason ?? "",
    means,
    restock: values.restock === "true",
    ...(values.reference ? { reference: values.reference } : {}),
  };
}

function actionsOfShipment(order: OrderRecords, shipment: Shipment): Action[] {
  const path = { orderId: order.id, shipmentId: shipment.id };
  const change = (
    label: "shipped" | "delivered" | "drop",
    confirmation: Sentence,
    status: "SHIPPED" | "DELIVERED" | "CANCELLED",
    fields?: ComponentChildren,
  ): Action => ({
    name: `${label} ${shipment.id}`,
    label,
    confirmation,
    danger: status === "CANCELLED",
    fields,
    send: ({ carrier, trackingNumber }, idempotencyKey) =>
      call("PATCH /admin/orders/{orderId}/shipments/{shipmentId}", {
        path,
        body: { status, ...(carrier && trackingNumber ? { carrier, trackingNumber } : {}) },
        idempotencyKey,
      }),
  });
  if (!has("staff")) return [];
  if (shipment.status === "SHIPPED") return [change("delivered", "confirmDelivered", "DELIVERED")];
  if (shipment.status !== "PREPARING") return [];
  const fields = (
    <>
      <TextField name="carrier" label={say("carrier")} placeholder="cj" required />
      <TextField name="trackingNumber" label={say("trackingNumber")} required />
    </>
  );
  return [
    change("shipped", "shipped", "SHIPPED", fields),
    change("drop", "confirmDrop", "CANCELLED"),
  ];
}

function actionsOfReturn(order: OrderRecords, row: ReturnRecord): Action[] {
  const path = { orderId: order.id, returnId: row.id };
  const decide = (label: "approve" | "reject", confirmation: Sentence): Action => ({
    name: `${label} ${row.id}`,
    label,
    confirmation,
    danger: label === "reject",
    send: (_, idempotencyKey) =>
      call("PATCH /admin/orders/{orderId}/returns/{returnId}", {
        path,
        body: { status: label === "approve" ? "APPROVED" : "REJECTED" },
        idempotencyKey,
      }),
  });
  const found: Action[] = [];
  if (has("support") && row.status === "REQUESTED") found.push(decide("approve", "confirmApprove"));
  if (has("support") && ["REQUESTED", "APPROVED"].includes(row.status)) {
    found.push(decide("reject", "confirmReject"));
  }
  if (has("staff") && row.status === "APPROVED") {
    found.push({
      name: `receive ${row.id}`,
      label: "receive",
      confirmation: "confirmReceive",
      send: (_, idempotencyKey) =>
        call("POST /admin/orders/{orderId}/returns/{returnId}/receipt", {
          path,
          body: {},
          idempotencyKey,
        }),
    });
  }
  return found;
}

function Section({ title, children }: { title: string; children: ComponentChildren }) {
  return <section class="card stack tight"><h2>{title}</h2>{children}</section>;
}

function Facts({ of }: { of: OrderRecords }) {
  const address = of.shippingAddress;
  return (
    <Section title={say("order")}>
      <dl class="facts">
        <dt>{say("customer")}</dt><dd><a href={href("/", { userId: of.userId })}>{of.userId}</a></dd>
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
      <div class="table">
        <table>
          <thead>
            <tr>
              <th>{say("product")}</th><th class="number">{say("quantity")}</th>
              <th class="number">{say("price")}</th><th class="number">{say("amount")}</th>
            </tr>
          </thead>
          <tbody>
            {of.items.map((line) => (
              <tr key={line.productId}>
                <td>{line.productName}</td>
                <td class="number">{line.quantity}</td>
                <td class="number">{money(line.unitPrice, of.currency)}</td>
                <td class="number">{money(line.lineAmount, of.currency)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
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

function Shipments({ of, choose }: { of: OrderRecords; choose: (action: Action) => void }) {
  return (
    <Section title={say("shipments")}>
      {of.shipments.length === 0 && <p class="muted">{say("empty")}</p>}
      <ul class="rows">
        {of.shipments.map((shipment) => (
          <li key={shipment.id}>
            <Status of={shipment.status} />
            <span>{goods(of, shipment.items)}</span>
            <span class="muted small">{[shipment.carrier, shipment.trackingNumber].filter(Boolean).join(" ")}</span>
            {actionsOfShipment(of, shipment).map((each) => (
              <ActionButton key={each.name} of={each} choose={choose} />
            ))}
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Returns({ of, choose }: { of: OrderRecords; choose: (action: Action) => void }) {
  return (
    <Section title={say("returns")}>
      {of.returns.length === 0 && <p class="muted">{say("empty")}</p>}
      <ul class="rows">
        {of.returns.map((row) => (
          <li key={row.id}>
            <Status of={row.status} />
            <span>{goods(of, row.items)}</span>
            <span class="muted small">{row.reason}</span>
            {actionsOfReturn(of, row).map((each) => (
              <ActionButton key={each.name} of={each} choose={choose} />
            ))}
          </li>
        ))}
      </ul>
    </Section>
  );
}

function goods(of: OrderRecords, items: readonly { productId: number; quantity: number }[]): string {
  const names = new Map(of.items.map((line) => [line.productId, line.productName]));
  return items.map((each) => `${names.get(each.productId) ?? each.productId} × ${each.quantity}`).join(", ");
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

function Notes({ of, changed }: { of: OrderRecords; changed: () => void }) {
  const sending = useSending();
  const onSend = async ({ text = "" }: Values) => {
    await submit(`note ${of.id}`, text, (idempotencyKey) =>
      call("POST /admin/orders/{orderId}/notes", {
        path: { orderId: of.id },
        body: { text },
        idempotencyKey,
      }),
    );
    changed();
  };
  return (
    <Section title={say("notes")}>
      <Form key={of.notes.length} sending={sending} label={say("addNote")} onSend={onSend}>
        <TextArea name="text" label={say("note")} maxLength={2000} required />
      </Form>
      <ul class="rows">
        {of.notes.map((note) => (
          <li key={note.id}>
            <p class="text">{note.text}</p>
            <span class="muted small">{note.authorId} · {dateTime(note.createdAt)}</span>
          </li>
        ))}
      </ul>
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
