import "@shared/styles/base.css";
import { LanguagePicker, Main, Messages, SkipLink, ThemePicker } from "@shared/components/frame";
import { render } from "preact";

function App() {
  return (
    <>
      <SkipLink />
      <header class="row"><LanguagePicker /><ThemePicker /></header>
      <Main title="msa-shop"><h1>msa-shop</h1></Main>
      <Messages />
    </>
  );
}

render(<App />, document.getElementById("app")!);
