/** Settlements by business day or month: a chart, the amounts, and a file. */
import { call } from "@shared/api/client";
import type { DailySettlement, MonthlySettlement } from "@shared/api/contract";
import { SelectField, TextField } from "@shared/components/form";
import { money, number } from "@shared/i18n";
import { useLoaded } from "@shared/load";
import { Filters, useQuery } from "./filters";
import { Download, Shown, Table } from "./parts";
import { say } from "./sentences";

const PATH = "/settlements";
const HEIGHT = 120;
const BAR = 20;

interface Period {
  name: string;
  of: DailySettlement | MonthlySettlement;
}

/** The newest periods, or the one that is asked for. */
async function load(by: string, period: string, signal: AbortSignal): Promise<Period[]> {
  if (by === "month") {
    const query = { yearMonth: period || undefined };
    const found = [await call("GET /settlements/monthly", { query, signal })].flat();
    return found.map((of) => ({ name: of.yearMonth, of }));
  }
  const query = { date: period || undefined };
  const found = [await call("GET /settlements/daily", { query, signal })].flat();
  return found.map((of) => ({ name: of.settlementDate, of }));
}

export function Settlements() {
  const { by = "day", period = "" } = useQuery();
  const settlements = useLoaded((signal) => load(by, period, signal), [by, period]);
  return (
    <div class="stack">
      <h1>{say("settlements")}</h1>
      <Filters path={PATH} names={["by", "period"]}>
        <SelectField name="by" label={say("by")} value={by}>
          <option value="day">{say("day")}</option>
          <option value="month">{say("month")}</option>
        </SelectField>
        <TextField
          name="period"
          label={say("period")}
          value={period}
          placeholder={by === "month" ? "2026-01" : "2026-01-31"}
          pattern="[0-9]{4}-[0-9]{2}(-[0-9]{2})?"
        />
      </Filters>
      <Shown of={settlements}>
        {(found) => (
          <>
            {found.length > 0 && <Chart of={found} />}
            <div class="card stack tight">
              <Download name={`settlements-${by}.csv`} load={() => exported(by, found[0]?.name)} />
              <Amounts of={found} />
            </div>
          </>
        )}
      </Shown>
    </div>
  );
}

/** The days of the newest day's month, or the months of the newest month's year. */
function exported(by: string, newest = new Date().toISOString().slice(0, 10)): Promise<unknown> {
  return by === "month"
    ? call("GET /settlements/monthly.csv", { query: { year: Number(newest.slice(0, 4)), bom: "true" } })
    : call("GET /settlements/daily.csv", { query: { yearMonth: newest.slice(0, 7), bom: "true" } });
}

/** A bar for each period, oldest first; the table has the same amounts in text. */
function Chart({ of }: { of: readonly Period[] }) {
  const periods = [...of].reverse();
  const most = Math.max(1, ...periods.map((each) => Math.abs(each.of.totalAmount)));
  return (
    <figure class="card">
      <svg
        class="chart"
        viewBox={`0 0 ${Math.max(periods.length, 12) * BAR} ${HEIGHT}`}
        role="img"
        aria-label={`${say("total")}: ${periods[0]!.name} – ${periods.at(-1)!.name}`}
      >
        {periods.map(({ name, of: { totalAmount, currency } }, index) => {
          const height = Math.max(1, (Math.abs(totalAmount) / most) * (HEIGHT - 4));
          return (
            <rect
              key={`${name} ${currency}`}
              class={totalAmount < 0 ? "negative" : ""}
              x={index * BAR + 2}
              y={HEIGHT - height}
              width={BAR - 4}
              height={height}
            >
              <title>{name}: {money(totalAmount, currency)}</title>
            </rect>
          );
        })}
      </svg>
      <figcaption class="small muted">{periods[0]!.name} – {periods.at(-1)!.name}</figcaption>
    </figure>
  );
}

function Amounts({ of }: { of: readonly Period[] }) {
  return (
    <Table
      of={of}
      label={say("settlements")}
      id={(row) => `${row.name} ${row.of.currency}`}
      columns={[
        { label: "period", cell: (row) => row.name },
        { label: "captured", number: true, cell: ({ of: each }) => money(each.capturedAmount, each.currency) },
        { label: "refunded", number: true, cell: ({ of: each }) => money(each.refundedAmount, each.currency) },
        { label: "total", number: true, cell: ({ of: each }) => money(each.totalAmount, each.currency) },
        { label: "payments", number: true, cell: (row) => number(row.of.paymentCount) },
        { label: "refunds", number: true, cell: (row) => number(row.of.refundCount) },
        { label: "status", cell: (row) => say(row.of.closed ? "closedPeriod" : "openPeriod") },
      ]}
    />
  );
}
