/** The fields of a product's texts and price, and of its pictures and options. */
import { call } from "@shared/api/client";
import type { ProductChange, StaffProduct, Translation } from "@shared/api/contract";
import { Loading } from "@shared/components/basic";
import { SelectField, TextArea, TextField } from "@shared/components/form";
import { useLoaded } from "@shared/load";
import { Fragment } from "preact";
import { useState } from "preact/hooks";
import type { Values } from "./parts";
import { say } from "./sentences";

const IMAGES_MAX = 10;

type Translations = Record<string, Translation>;

/** The language of the translation: that of the shop itself is the product's own. */
function languageOf(translations: Translations): string {
  return Object.keys(translations)[0] ?? "en";
}

export function ProductFields({ of }: { of?: StaffProduct }) {
  const categories = useLoaded((signal) => call("GET /categories", { signal }), []);
  const language = languageOf(of?.translations ?? {});
  const translation = of?.translations[language];
  if (!categories.data) return <Loading />;
  return (
    <>
      <TextField name="name" label={say("name")} value={of?.name ?? ""} maxLength={200} required />
      <TextArea name="description" label={say("description")} value={of?.description ?? ""} maxLength={2000} />
      <TextField name="translatedName" label={`${say("name")} (${language})`} value={translation?.name ?? ""} maxLength={200} />
      <TextArea name="translatedDescription" label={`${say("description")} (${language})`} value={translation?.description ?? ""} maxLength={2000} />
      <SelectField name="category" label={say("category")} value={of?.category ?? ""} required>
        {categories.data.map(({ name }) => <option key={name} value={name}>{name}</option>)}
      </SelectField>
      <TextField name="price" label={say("price")} type="number" min={1} value={of?.price ?? ""} required />
      <label class="row">
        <input type="checkbox" name="flashSale" value="true" checked={of?.flashSale ?? false} /> {say("flashSale")}
      </label>
    </>
  );
}

/** What the fields have; a translation keeps the texts of its pictures, and has none without a name. */
export function textsOf(values: Values, translations: Translations) {
  const { name = "", description = "", category = "", translatedName, translatedDescription } = values;
  const language = languageOf(translations);
  const { [language]: present, ...others } = translations;
  const next: Translations = translatedName
    ? {
        ...others,
        [language]: {
          ...present,
          name: translatedName,
          description: translatedDescription ?? "",
        },
      }
    : others;
  return {
    name,
    description,
    category,
    price: Number(values.price),
    flashSale: values.flashSale === "true",
    translations: next,
  };
}

/** The pictures in their order, the main one first, and two lines for more. */
export function ImageFields({ of }: { of: StaffProduct }) {
  const rows = [...of.images, { url: "", alt: "" }, { url: "", alt: "" }].slice(0, IMAGES_MAX);
  return (
    <>
      {rows.map(({ url, alt }, index) => (
        <Fragment key={index}>
          <TextField name={`url ${index}`} label={`${say("imageUrl")} ${index + 1}`} value={url} maxLength={2000} />
          <TextField name={`alt ${index}`} label={`${say("imageText")} ${index + 1}`} value={alt} maxLength={300} />
        </Fragment>
      ))}
    </>
  );
}

export function imagesOf(values: Values): NonNullable<ProductChange["images"]> {
  return Array.from({ length: IMAGES_MAX }, (_, index) => ({
    url: values[`url ${index}`]?.trim() ?? "",
    alt: values[`alt ${index}`]?.trim() ?? "",
  })).filter((image) => image.url !== "");
}

/** The group that a product is in, and a field for each of the group's options. */
export function MembershipFields({ of }: { of: StaffProduct }) {
  const groups = useLoaded((signal) => call("GET /admin/product-groups", { query: { limit: 100 }, signal }), []);
  const [chosen, choose] = useState(String(of.group?.id ?? ""));
  if (!groups.data) return <Loading />;
  const group = groups.data.find((each) => String(each.id) === chosen);
  return (
    <>
      <SelectField name="group" label={say("group")} value={chosen} onInput={choose}>
        <option value="">{say("noGroup")}</option>
        {groups.data.map(({ id, name }) => <option key={id} value={String(id)}>{name}</option>)}
      </SelectField>
      {group?.options.map((option) => (
        <TextField
          key={`${group.id} ${option}`}
          name={`option ${option}`}
          label={option}
          value={String(of.group?.options[option] ?? "")}
          maxLength={50}
          required
        />
      ))}
    </>
  );
}

export function membershipOf(values: Values): NonNullable<ProductChange["group"]> | null {
  if (!values.group) return null;
  const options = Object.entries(values)
    .filter(([name]) => name.startsWith("option "))
    .map(([name, value]) => [name.slice("option ".length), value.trim()]);
  return { id: Number(values.group), options: Object.fromEntries(options) as Record<string, string> };
}
