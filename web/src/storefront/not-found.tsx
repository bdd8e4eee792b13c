/** A page for an address that leads nowhere. */
import { Empty } from "@shared/components/basic";
import { Main } from "@shared/components/frame";
import { href } from "@shared/router";
import { text } from "./sentences";

export function NotFound() {
  return (
    <Main title={text("notFound")}>
      <Empty icon="search" level={1} title={text("notFound")}>
        <a class="button primary" href={href("/")}>{text("home")}</a>
      </Empty>
    </Main>
  );
}
