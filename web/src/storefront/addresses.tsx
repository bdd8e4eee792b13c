/** The address book: the fields of an address, and the section of the account. */
import { call, send } from "@shared/api/client";
import type { Address, SavedAddress } from "@shared/api/contract";
import { submit } from "@shared/api/submissions";
import { Badge, Button, ErrorNotice, Loading } from "@shared/components/basic";
import { Dialog } from "@shared/components/dialog";
import { announce } from "@shared/components/frame";
import { Form, type Sending, SendingError, TextField, useSending } from "@shared/components/form";
import { useLoaded } from "@shared/load";
import { say } from "@shared/sentences";
import { useState } from "preact/hooks";
import { text } from "./sentences";

export function useAddresses() {
  return useLoaded((signal) => call("GET /users/me/addresses", { signal }), []);
}

/** The address in the texts of `AddressFields`. */
export function addressIn(values: Record<string, string>): Address {
  return {
    recipient: values.recipient!,
    phone: values.phone!,
    country: "KR",
    postcode: values.postcode!,
    line1: values.line1!,
    line2: values.line2 || null,
  };
}

/** Adds an address to the book; returns its id. */
export async function save(address: Address, isDefault = false): Promise<string> {
  const body = { address, isDefault };
  const added = await submit("address", body, (idempotencyKey) =>
    call("POST /users/me/addresses", { body, idempotencyKey }),
  );
  return added.id;
}

export function AddressFields({ address, sending }: { address?: Partial<Address>; sending: Sending }) {
  const field = (name: keyof Address) => ({
    name,
    value: address?.[name] ?? "",
    error: sending.errorOf(name),
  });
  return (
    <>
      <TextField label={text("recipient")} {...field("recipient")} autocomplete="name" maxLength={100} required />
      <TextField label={text("phone")} {...field("phone")} type="tel" autocomplete="tel" required />
      <TextField
        label={text("postcode")}
        {...field("postcode")}
        inputMode="numeric"
        autocomplete="postal-code"
        pattern="[0-9]{5}"
        hint={text("postcodeHint")}
        required
      />
      <TextField label={text("line1")} {...field("line1")} autocomplete="address-line1" required />
      <TextField label={text("line2")} {...field("line2")} autocomplete="address-line2" />
    </>
  );
}

export function AddressText({ address }: { address: Address }) {
  return (
    <span class="address">
      <strong>{address.recipient}</strong> <span class="muted small">{address.phone}</span>
      <br />
      <span class="small">{[address.postcode, address.line1, address.line2].filter(Boolean).join(" ")}</span>
    </span>
  );
}

export function AddressBook() {
  const loaded = useAddresses();
  const sending = useSending();
  const [edited, setEdited] = useState<SavedAddress | "new" | null>(null);
  const close = () => setEdited(null);
  const remove = ({ id }: SavedAddress) =>
    sending.run(async () => {
      await submit("address", ["remove", id], (idempotencyKey) =>
        call("DELETE /users/me/addresses/{addressId}", { path: { addressId: id }, idempotencyKey }),
      );
      announce(text("removed"));
      loaded.reload();
    });
  const makeDefault = ({ id }: SavedAddress) =>
    sending.run(async () => {
      await change(id, { isDefault: true });
      loaded.reload();
    });
  return (
    <section class="card stack">
      <h2>{text("addresses")}</h2>
      {loaded.error !== undefined && <ErrorNotice error={loaded.error} retry={loaded.reload} />}
      {loaded.data === undefined && loaded.error === undefined && <Loading />}
      {loaded.data?.length === 0 && <p class="muted">{text("noAddresses")}</p>}
      <ul class="stack" aria-busy={sending.busy}>
        {loaded.data?.map((saved) => (
          <li class="stack tight" key={saved.id}>
            <AddressText address={saved.address as Address} />
            <div class="actions">
              {saved.isDefault ? (
                <Badge tone="good">{text("defaultAddress")}</Badge>
              ) : (
                <Button kind="quiet" onClick={() => void makeDefault(saved)}>
                  {text("makeDefault")}
                </Button>
              )}
              <Button
                kind="quiet"
                aria-label={`${text("edit")}: ${saved.address.recipient}, ${saved.address.line1}`}
                onClick={() => setEdited(saved)}
              >
                {text("edit")}
              </Button>
              <Button
                kind="quiet"
                aria-label={text("remove", { name: `${saved.address.recipient}, ${saved.address.line1}` })}
                onClick={() => void remove(saved)}
              >
                {text("delete")}
              </Button>
            </div>
          </li>
        ))}
      </ul>
      <SendingError sending={sending} />
      <Button icon="plus" onClick={() => setEdited("new")}>{text("addAddress")}</Button>
      {edited && <AddressDialog edited={edited} close={close} changed={loaded.reload} />}
    </section>
  );
}

async function change(addressId: string, body: { address?: Address; isDefault?: boolean }): Promise<void> {
  const path = { addressId };
  const current = await send("GET /users/me/addresses/{addressId}", { path });
  const ifMatch = current.headers.get("etag") ?? "*";
  await submit("address", [addressId, body, ifMatch], (idempotencyKey) =>
    call("PATCH /users/me/addresses/{addressId}", { path, body, idempotencyKey, ifMatch }),
  );
}

function AddressDialog({
  edited,
  close,
  changed,
}: {
  edited: SavedAddress | "new";
  close: () => void;
  changed: () => void;
}) {
  const sending = useSending();
  const title = text(edited === "new" ? "addAddress" : "editAddress");
  const store = async (values: Record<string, string>) => {
    if (edited === "new") await save(addressIn(values));
    else await change(edited.id, { address: addressIn(values) });
    announce(text("saved"));
    close();
    changed();
  };
  return (
    <Dialog title={title} onClose={close}>
      <Form sending={sending} label={say("save")} onSend={store}>
        <AddressFields sending={sending} {...(edited === "new" ? {} : { address: edited.address })} />
      </Form>
    </Dialog>
  );
}
