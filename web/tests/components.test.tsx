import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { ApiError, NoResponse } from "@shared/api/client";
import { Button, ErrorNotice } from "@shared/components/basic";
import { Form, TextField, useSending } from "@shared/components/form";
import { chooseLanguage, money } from "@shared/i18n";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

function Sample({ send }: { send: (values: Record<string, string>) => Promise<void> }) {
  const sending = useSending();
  return (
    <Form sending={sending} label="Send" onSend={send}>
      <TextField label="Name" name="name" value="Kim" error={sending.errorOf("name")} />
    </Form>
  );
}

describe("components", () => {
  beforeEach(() => chooseLanguage("en"));
  afterEach(cleanup);

  it("send once however often the button is pressed", async () => {
    const send = vi.fn(() => new Promise<void>((resolve) => setTimeout(resolve, 20)));
    render(<Sample send={send} />);
    const form = screen.getByRole("button").closest("form")!;
    for (let press = 0; press < 3; press++) fireEvent.submit(form);
    await screen.findByText("Working…");
    await screen.findByText("Send");
    expect(send).toHaveBeenCalledOnce();
    expect(send).toHaveBeenCalledWith({ name: "Kim" });
  });

  it("keep typed text, and give a rejected field the focus and its message", async () => {
    const errors = [{ field: "/name", message: "too long" }];
    const send = () => Promise.reject(new ApiError(422, "X", "invalid", { errors }));
    render(<Sample send={send} />);
    const field = screen.getByLabelText<HTMLInputElement>("Name");
    fireEvent.input(field, { target: { value: "Lee" } });
    fireEvent.submit(field.closest("form")!);
    expect(await screen.findByText("too long")).toBeTruthy();
    expect(field.value).toBe("Lee");
    expect(field.getAttribute("aria-invalid")).toBe("true");
    await vi.waitFor(() => expect(document.activeElement).toBe(field));
  });

  it("say that sending again has no second effect where there was no answer", async () => {
    render(<Sample send={() => Promise.reject(new NoResponse())} />);
    fireEvent.submit(screen.getByRole("button").closest("form")!);
    expect(await screen.findByText(/no second effect/)).toBeTruthy();
  });

  it("do nothing while busy, and keep the focus", () => {
    const onClick = vi.fn();
    render(<Button busy onClick={onClick}>Go</Button>);
    const button = screen.getByRole<HTMLButtonElement>("button");
    fireEvent.click(button);
    expect(onClick).not.toHaveBeenCalled();
    expect(button.disabled).toBe(false);
  });

  it("show the reference of a fault of the shop, and its message as text", () => {
    render(<ErrorNotice error={new ApiError(500, "X", "<img src=x>", {}, "abc123")} />);
    expect(screen.getByText("Reference abc123")).toBeTruthy();
    expect(document.querySelector("img")).toBeNull();
  });

  it("write amounts as each language does", () => {
    expect(money(12345, "KRW")).toBe("₩12,345");
    expect(money(12345, "USD")).toBe("$123.45");
  });
});
