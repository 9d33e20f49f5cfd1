/** stdout is for data, stderr for people. */
import { styleText } from "node:util";

export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

export function data(text: string): void {
  process.stdout.write(text.endsWith("\n") ? text : `${text}\n`);
}

export function printJson(value: unknown): void {
  data(JSON.stringify(value));
}

type Style = "bold" | "dim" | "red" | "green" | "yellow";

/** Coloured if that stream is a terminal and NO_COLOR and TERM=dumb do not forbid it. */
export function style(stream: NodeJS.WriteStream, name: Style, text: string): string {
  const plain = !stream.isTTY || (process.env.NO_COLOR ?? "") !== "" || process.env.TERM === "dumb";
  return plain ? text : styleText(name, text);
}

/** Lines of a table with columns as wide as their widest cell. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
