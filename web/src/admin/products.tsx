/** The list of products, for sale and withdrawn, and a form for a new one. */
import { call, send } from "@shared/api/client";
import type { StaffProduct } from "@shared/api/contract";
import { Badge } from "@shared/components/basic";
import { SelectField, TextField } from "@shared/components/form";
import { money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { has } from "./access";
import { Filters, useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Shown, Table } from "./parts";
import { ProductFields, textsOf } from "./product-fields";
import { say } from "./sentences";

const PATH = "/products";
const CREATE: Action = {
  name: "create product",
  label: "newProduct",
  confirmation: "confirmNewProduct",
  fields: (
    <>
      <ProductFields />
      <TextField name="stockQuantity" label={say("stock")} type="number" min={0} value={0} required />
    </>
  ),
  send: (values, idempotencyKey) =>
    call("POST /products", {
      body: { ...textsOf(values, {}), stockQuantity: Number(values.stockQuantity) },
      idempotencyKey,
    }),
};

export function Products() {
  const query = useQuery<Record<string, string> & { active?: "true" | "false" }>();
  const products = useLoaded(
    (signal) => send("GET /admin/products", { query, signal }),
    [JSON.stringify(query)],
  );
  const created = (product: unknown) => go(href(`${PATH}/${(product as StaffProduct).id}`));
  return (
    <div class="stack">
      <Heading title={say("products")}>{has("staff") && <Actions of={[CREATE]} done={created} />}</Heading>
      <Filters path={PATH} names={["name", "active"]}>
        <TextField name="name" label={say("name")} value={query.name ?? ""} />
        <SelectField name="active" label={say("status")} value={query.active ?? ""}>
          <option value="">{say("any")}</option>
          <option value="true">{say("forSale")}</option>
          <option value="false">{say("withdrawn")}</option>
        </SelectField>
      </Filters>
      <Shown of={products}>
        {({ data, next }) => (
          <>
            <div class="card">
              <Table
                of={data}
                label={say("products")}
                id={(row) => row.id}
                columns={[
                  { label: "productId", cell: (row) => row.id },
                  { label: "name", cell: (row) => <a href={href(`${PATH}/${row.id}`)}>{row.name}</a> },
                  { label: "category", cell: (row) => row.category },
                  { label: "status", cell: (row) => <ForSale of={row} /> },
                  { label: "price", number: true, cell: (row) => money(row.price, row.currency) },
                  { label: "available", number: true, cell: (row) => number(row.stockQuantity) },
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

export function ForSale({ of }: { of: StaffProduct }) {
  return <Badge tone={of.active ? "good" : "neutral"}>{say(of.active ? "forSale" : "withdrawn")}</Badge>;
}
