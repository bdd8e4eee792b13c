/** One product: texts, pictures, options, stock with its history, and prices with their schedules. */
import { call, send } from "@shared/api/client";
import type { PriceSchedule, ProductChange, StaffProduct, StockChange } from "@shared/api/contract";
import { SelectField, TextField } from "@shared/components/form";
import { dateTime, money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { href } from "@shared/router";
import { has } from "./access";
import { changesOf, momentOf } from "./fields";
import { useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Section, Shown, Status, Table } from "./parts";
import { ImageFields, imagesOf, MembershipFields, membershipOf, ProductFields, textsOf } from "./product-fields";
import { ForSale } from "./products";
import { say, type Sentence } from "./sentences";

const REASONS = ["RESTOCK", "DAMAGE", "LOSS", "SUPPLIER_RETURN", "CUSTOMER_RETURN", "COUNT"] as const;

export function ProductPage({ id }: { id: string }) {
  const product = useLoaded(
    (signal) => send("GET /admin/products/{productId}", { path: { productId: id }, signal }),
    [id],
  );
  return (
    <Shown of={product}>
      {({ data: of, headers }) => (
        <div class="stack">
          <a href={href("/products")}>← {say("products")}</a>
          <Heading title={<>{of.name} <ForSale of={of} /></>}>
            {has("staff") && (
              <Actions
                of={changesTo(of, headers.get("etag") ?? "")}
                done={product.reload}
                outdated={product.reload}
              />
            )}
          </Heading>
          <div class="halves">
            <div class="stack"><Facts of={of} /><Images of={of} /></div>
            <div class="stack">
              <Prices of={of} changed={product.reload} />
              <Stock of={of} changed={product.reload} />
            </div>
          </div>
        </div>
      )}
    </Shown>
  );
}

/** Changes of the product as it was read; the shop rejects them when it has changed since. */
function changesTo(product: StaffProduct, ifMatch: string): Action[] {
  const path = { productId: product.id };
  const patch = (body: ProductChange, idempotencyKey: string) =>
    call("PATCH /products/{productId}", { path, body, ifMatch, idempotencyKey });
  return [
    {
      name: `edit product ${product.id}`,
      label: "edit",
      confirmation: "confirmEdit",
      fields: <ProductFields of={product} />,
      send: (values, key) => {
        const { name, description, category, price, flashSale, translations } = product;
        const before = { name, description, category, price, flashSale, translations };
        return patch(changesOf(before, textsOf(values, translations)), key);
      },
    },
    {
      name: `images of product ${product.id}`,
      label: "images",
      confirmation: "confirmImages",
      fields: <ImageFields of={product} />,
      send: (values, key) => patch({ images: imagesOf(values) }, key),
    },
    {
      name: `group of product ${product.id}`,
      label: "options",
      confirmation: "confirmGroup",
      fields: <MembershipFields of={product} />,
      send: (values, key) => patch({ group: membershipOf(values) }, key),
    },
    {
      name: `${product.active ? "withdraw" : "restore"} product ${product.id}`,
      label: product.active ? "withdraw" : "bringBack",
      confirmation: product.active ? "confirmWithdraw" : "confirmBringBack",
      danger: product.active,
      send: (_, key) => patch({ active: !product.active }, key),
    },
  ];
}

function Facts({ of }: { of: StaffProduct }) {
  const options = Object.entries(of.group?.options ?? {});
  return (
    <Section title={say("product")}>
      <dl class="facts">
        <dt>{say("productId")}</dt><dd>{of.id}</dd>
        <dt>{say("category")}</dt><dd>{of.category}</dd>
        <dt>{say("description")}</dt><dd class="text">{of.description}</dd>
        {Object.entries(of.translations).map(([language, { name }]) => (
          <><dt>{say("name")} ({language})</dt><dd>{name}</dd></>
        ))}
        {options.map(([name, value]) => <><dt>{name}</dt><dd>{String(value)}</dd></>)}
        {of.group && (
          <><dt>{say("group")}</dt><dd><a href={href(`/product-groups/${of.group.id}`)}>{of.group.id}</a></dd></>
        )}
        {of.flashSale && <><dt>{say("flashSale")}</dt><dd>✓</dd></>}
      </dl>
    </Section>
  );
}

/** Pictures of the shop or over HTTPS; other addresses are not loaded. */
function Images({ of }: { of: StaffProduct }) {
  return (
    <Section title={say("images")}>
      {of.images.length === 0 && <p class="muted">{say("empty")}</p>}
      <ul class="rows">
        {of.images.map(({ url, alt }) => (
          <li key={url}>
            {/^(https:\/\/|\/assets\/)/.test(url) && <img class="thumbnail" src={url} alt="" loading="lazy" />}
            <span>{alt}</span><span class="muted small mono">{url}</span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Stock({ of, changed }: { of: StaffProduct; changed: () => void }) {
  const query = useQuery();
  const path = { productId: of.id };
  const stock = useLoaded(
    (signal) =>
      send("GET /admin/products/{productId}/stock-moves", {
        path,
        query: { limit: 10, cursor: query.moves ? Number(query.moves) : undefined },
        signal,
      }),
    [of.id, query.moves],
  );
  const adjust: Action = {
    name: `stock of product ${of.id}`,
    label: "adjustStock",
    confirmation: "confirmStock",
    fields: <StockFields />,
    send: ({ quantity, reason }, idempotencyKey) =>
      call("POST /products/{productId}/stock", {
        path,
        body: { quantity: Number(quantity), reason: reason as NonNullable<StockChange["reason"]> },
        idempotencyKey,
      }),
  };
  const done = () => {
    changed();
    stock.reload();
  };
  return (
    <Section title={say("stock")}>
      <Shown of={stock}>
        {({ data: { onHand, reserved, moves }, next }) => (
          <>
            <p>
              {say("onHand")} <strong>{number(onHand)}</strong> · {say("reserved")} <strong>{number(reserved)}</strong>
            </p>
            {has("staff") && <Actions of={[adjust]} done={done} />}
            <Table
              of={moves}
              label={say("stock")}
              id={(row) => row.seq}
              columns={[
                { label: "at", cell: (row) => dateTime(row.movedAt) },
                { label: "reason", cell: (row) => reasonOf(row.kind) },
                { label: "quantity", number: true, cell: (row) => number(row.quantity) },
                {
                  label: "order",
                  cell: (row) => row.orderId && <a class="mono" href={href(`/orders/${row.orderId}`)}>{row.orderId}</a>,
                },
              ]}
            />
            <PageLinks path={`/products/${of.id}`} query={query} name="moves" next={next} />
          </>
        )}
      </Shown>
    </Section>
  );
}

function reasonOf(kind: string): string {
  return (REASONS as readonly string[]).includes(kind) ? say(kind as Sentence) : kind;
}

function StockFields() {
  return (
    <>
      <TextField name="quantity" label={say("quantity")} hint={say("quantityHint")} type="number" required />
      <SelectField name="reason" label={say("reason")} value="RESTOCK">
        {REASONS.map((each) => <option key={each} value={each}>{say(each)}</option>)}
      </SelectField>
    </>
  );
}

function Prices({ of, changed }: { of: StaffProduct; changed: () => void }) {
  const query = useQuery();
  const path = { productId: of.id };
  const prices = useLoaded(
    (signal) =>
      send("GET /admin/products/{productId}/prices", {
        path,
        query: { limit: 10, cursor: query.prices ? Number(query.prices) : undefined },
        signal,
      }),
    [of.id, of.price, query.prices],
  );
  const plan: Action = {
    name: `price of product ${of.id}`,
    label: "planPrice",
    confirmation: "confirmPlan",
    fields: <PlanFields />,
    send: ({ price, startsAt, endsAt }, idempotencyKey) =>
      call("POST /admin/products/{productId}/price-schedules", {
        path,
        body: { price: Number(price), startsAt: momentOf(startsAt) ?? "", endsAt: momentOf(endsAt) ?? "" },
        idempotencyKey,
      }),
  };
  const done = () => {
    changed();
    prices.reload();
  };
  return (
    <Section title={say("price")}>
      <Shown of={prices}>
        {({ data: { price, currency, schedules, changes }, next }) => (
          <>
            <p><strong>{money(price, currency)}</strong></p>
            {has("staff") && <Actions of={[plan]} done={done} />}
            <ul class="rows">
              {schedules.map((each) => (
                <li key={each.id}>
                  <Status of={each.state} /><span>{money(each.price, currency)}</span>
                  <span class="muted small">{dateTime(each.startsAt)} – {dateTime(each.endsAt)}</span>
                  {has("staff") && <Actions of={[endOf(of, each)]} done={done} />}
                </li>
              ))}
            </ul>
            <Table
              of={changes}
              label={say("priceHistory")}
              id={(row) => row.seq}
              columns={[
                { label: "at", cell: (row) => dateTime(row.changedAt) },
                { label: "before", number: true, cell: (row) => (row.from === null ? "" : money(row.from, currency)) },
                { label: "after", number: true, cell: (row) => money(row.to, currency) },
                { label: "actor", cell: (row) => row.changedBy ?? (row.scheduleId ? say("planned") : "") },
              ]}
            />
            <PageLinks path={`/products/${of.id}`} query={query} name="prices" next={next} />
          </>
        )}
      </Shown>
    </Section>
  );
}

function endOf(product: StaffProduct, { id }: PriceSchedule): Action {
  return {
    name: `end price ${id}`,
    label: "endPrice",
    confirmation: "confirmEndPrice",
    danger: true,
    send: () =>
      call("DELETE /admin/products/{productId}/price-schedules/{scheduleId}", {
        path: { productId: product.id, scheduleId: id },
      }),
  };
}

function PlanFields() {
  return (
    <>
      <TextField name="price" label={say("price")} type="number" min={1} required />
      <TextField name="startsAt" label={say("since")} type="datetime-local" required />
      <TextField name="endsAt" label={say("until")} type="datetime-local" required />
    </>
  );
}
