/** Coupons: what they take off, how often they are used, a new one, its limits and its end. */
import { call, send } from "@shared/api/client";
import type { Coupon } from "@shared/api/contract";
import { TextField } from "@shared/components/form";
import { dateTime, money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { has } from "./access";
import { localMoment, momentOf, numberOf } from "./fields";
import { useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Section, Shown, Status, Table, type Values } from "./parts";
import { say } from "./sentences";

const PATH = "/coupons";
const CREATE: Action = {
  name: "create coupon",
  label: "newCoupon",
  confirmation: "confirmNewCoupon",
  fields: <CouponFields />,
  send: (values, idempotencyKey) => call("POST /admin/coupons", { body: couponOf(values), idempotencyKey }),
};

export function Coupons() {
  const query = useQuery();
  const coupons = useLoaded(
    (signal) => send("GET /admin/coupons", { query, signal }),
    [JSON.stringify(query)],
  );
  const created = (coupon: unknown) => go(href(`${PATH}/${(coupon as Coupon).code}`));
  return (
    <div class="stack">
      <Heading title={say("coupons")}>{has("staff") && <Actions of={[CREATE]} done={created} />}</Heading>
      <Shown of={coupons}>
        {({ data, next }) => (
          <>
            <div class="card">
              <Table
                of={data}
                label={say("coupons")}
                id={(row) => row.code}
                columns={[
                  { label: "couponCode", cell: (row) => <a class="mono" href={href(`${PATH}/${row.code}`)}>{row.code}</a> },
                  { label: "status", cell: (row) => <Status of={row.state} /> },
                  { label: "discount", cell: discountOf },
                  { label: "until", cell: (row) => (row.endsAt ? dateTime(row.endsAt) : "") },
                  { label: "uses", number: true, cell: usesOf },
                ]}
              />
            </div>
            <PageLinks path={PATH} query={query} next={next} />
          </>
        )}
      </Shown>
    </div>
  );
}

export function CouponPage({ id }: { id: string }) {
  const coupon = useLoaded(
    (signal) => send("GET /admin/coupons/{code}", { path: { code: id }, signal }),
    [id],
  );
  return (
    <Shown of={coupon}>
      {({ data: of, headers }) => (
        <div class="stack">
          <a href={href(PATH)}>← {say("coupons")}</a>
          <Heading title={<><span class="mono">{of.code}</span> <Status of={of.state} /></>}>
            {has("staff") && of.state === "ACTIVE" && (
              <Actions of={changesTo(of, headers.get("etag") ?? "")} done={coupon.reload} outdated={coupon.reload} />
            )}
          </Heading>
          <Section title={say("coupon")}>
            <dl class="facts">
              <dt>{say("discount")}</dt><dd>{discountOf(of)}</dd>
              <dt>{say("goodsMinimum")}</dt><dd>{money(of.goodsMinimum, of.currency)}</dd>
              <dt>{say("combinable")}</dt><dd>{say(of.combinable ? "yes" : "no")}</dd>
              <dt>{say("since")}</dt><dd>{dateTime(of.startsAt)}</dd>
              <dt>{say("until")}</dt><dd>{of.endsAt ? dateTime(of.endsAt) : say("noLimit")}</dd>
              <dt>{say("uses")}</dt><dd>{usesOf(of)}</dd>
              <dt>{say("usesPerCustomer")}</dt>
              <dd>{of.usesPerCustomerMaximum === null ? say("noLimit") : number(of.usesPerCustomerMaximum)}</dd>
            </dl>
          </Section>
        </div>
      )}
    </Shown>
  );
}

function discountOf(of: Coupon): string {
  if (of.discountAmount !== null) return money(of.discountAmount, of.currency);
  const part = `${number((of.discountBasisPoints ?? 0) / 100)} %`;
  return of.discountMaximum === null
    ? part
    : `${part} (${say("discountMaximum")} ${money(of.discountMaximum, of.currency)})`;
}

function usesOf(of: Coupon): string {
  return of.usesMaximum === null ? number(of.uses) : `${number(of.uses)} / ${number(of.usesMaximum)}`;
}

function changesTo(coupon: Coupon, ifMatch: string): Action[] {
  const path = { code: coupon.code };
  return [
    {
      name: `edit coupon ${coupon.code}`,
      label: "edit",
      confirmation: "confirmEditCoupon",
      fields: <LimitFields of={coupon} />,
      send: ({ endsAt, usesMaximum }, idempotencyKey) =>
        call("PATCH /admin/coupons/{code}", {
          path,
          body: { endsAt: momentOf(endsAt) ?? null, usesMaximum: numberOf(usesMaximum) ?? null },
          ifMatch,
          idempotencyKey,
        }),
    },
    {
      name: `end coupon ${coupon.code}`,
      label: "endCoupon",
      confirmation: "confirmEndCoupon",
      danger: true,
      send: () => call("DELETE /admin/coupons/{code}", { path }),
    },
  ];
}

function LimitFields({ of }: { of?: Coupon }) {
  return (
    <>
      <TextField name="endsAt" label={say("until")} type="datetime-local" value={localMoment(of?.endsAt)} />
      <TextField name="usesMaximum" label={say("usesMaximum")} type="number" min={1} value={of?.usesMaximum ?? ""} />
    </>
  );
}

function CouponFields() {
  return (
    <>
      <TextField name="code" label={say("couponCode")} required />
      <TextField name="amount" label={say("discountAmount")} hint={say("discountHint")} type="number" min={1} />
      <TextField name="percent" label={say("discountPercent")} inputMode="decimal" pattern="[0-9]{1,3}([.][0-9]{1,2})?" />
      <TextField name="maximum" label={say("discountMaximum")} type="number" min={1} />
      <TextField name="goodsMinimum" label={say("goodsMinimum")} type="number" min={0} value={0} />
      <TextField name="startsAt" label={say("since")} type="datetime-local" />
      <LimitFields />
      <TextField name="perCustomer" label={say("usesPerCustomer")} type="number" min={1} />
      <label class="row"><input type="checkbox" name="combinable" value="true" /> {say("combinable")}</label>
    </>
  );
}

function couponOf(values: Values) {
  const { code = "", amount, percent, maximum, goodsMinimum, startsAt, endsAt } = values;
  return {
    code,
    discountAmount: numberOf(amount) ?? null,
    discountBasisPoints: percent ? Math.round(Number(percent) * 100) : null,
    discountMaximum: numberOf(maximum) ?? null,
    goodsMinimum: numberOf(goodsMinimum) ?? 0,
    combinable: values.combinable === "true",
    startsAt: momentOf(startsAt) ?? null,
    endsAt: momentOf(endsAt) ?? null,
    usesMaximum: numberOf(values.usesMaximum) ?? null,
    usesPerCustomerMaximum: numberOf(values.perCustomer) ?? null,
  };
}
