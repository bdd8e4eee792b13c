/** Groups of products that differ in options, such as size and colour. */
import { call, send } from "@shared/api/client";
import type { ListedGroup, ProductGroup } from "@shared/api/contract";
import { TextField } from "@shared/components/form";
import { useLoaded } from "@shared/load";
import { go, href } from "@shared/router";
import { has } from "./access";
import { changesOf } from "./fields";
import { useQuery } from "./filters";
import { type Action, Actions, Heading, PageLinks, Section, Shown, Table, type Values } from "./parts";
import { say } from "./sentences";

const PATH = "/product-groups";
const CREATE: Action = {
  name: "create group",
  label: "newGroup",
  confirmation: "confirmNewGroup",
  fields: <GroupFields />,
  send: (values, idempotencyKey) => call("POST /admin/product-groups", { body: groupOf(values), idempotencyKey }),
};

export function ProductGroups() {
  const query = useQuery();
  const groups = useLoaded(
    (signal) => send("GET /admin/product-groups", { query, signal }),
    [JSON.stringify(query)],
  );
  const created = (group: unknown) => go(href(`${PATH}/${(group as ProductGroup).id}`));
  return (
    <div class="stack">
      <Heading title={say("groups")}>{has("staff") && <Actions of={[CREATE]} done={created} />}</Heading>
      <Shown of={groups}>
        {({ data, next }) => (
          <>
            <div class="card">
              <Table
                of={data}
                label={say("groups")}
                id={(row) => row.id}
                columns={[
                  { label: "name", cell: (row) => <a href={href(`${PATH}/${row.id}`)}>{row.name}</a> },
                  { label: "options", cell: (row) => row.options.join(", ") },
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

export function ProductGroupPage({ id }: { id: string }) {
  const group = useLoaded(
    (signal) => send("GET /admin/product-groups/{groupId}", { path: { groupId: id }, signal }),
    [id],
  );
  return (
    <Shown of={group}>
      {({ data: of, headers }) => (
        <div class="stack">
          <a href={href(PATH)}>← {say("groups")}</a>
          <Heading title={of.name}>
            {has("staff") && (
              <Actions of={[rename(of, headers.get("etag") ?? "")]} done={group.reload} outdated={group.reload} />
            )}
          </Heading>
          <Section title={say("products")}>
            <Table
              of={of.members}
              label={say("products")}
              id={(row) => row.productId}
              columns={[
                { label: "product", cell: (row) => <a href={href(`/products/${row.productId}`)}>{row.productId}</a> },
                { label: "options", cell: (row) => of.options.map((each) => `${each}: ${row.options[each]}`).join(", ") },
                { label: "status", cell: (row) => say(row.active ? "forSale" : "withdrawn") },
              ]}
            />
          </Section>
        </div>
      )}
    </Shown>
  );
}

function rename(group: ProductGroup, ifMatch: string): Action {
  const before = { name: group.name, options: group.options };
  return {
    name: `rename group ${group.id}`,
    label: "edit",
    confirmation: "confirmRenameGroup",
    fields: <GroupFields of={group} />,
    send: (values, idempotencyKey) =>
      call("PATCH /admin/product-groups/{groupId}", {
        path: { groupId: group.id },
        body: changesOf(before, groupOf(values)),
        ifMatch,
        idempotencyKey,
      }),
  };
}

function GroupFields({ of }: { of?: ListedGroup }) {
  return (
    <>
      <TextField name="name" label={say("name")} value={of?.name ?? ""} maxLength={200} required />
      <TextField name="options" label={say("options")} hint={say("optionsHint")} value={of?.options.join(", ") ?? ""} required />
    </>
  );
}

function groupOf({ name = "", options = "" }: Values) {
  return { name, options: options.split(",").map((each) => each.trim()).filter(Boolean) };
}
