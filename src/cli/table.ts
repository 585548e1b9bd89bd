// Tables for terminals: aligned columns, and colours where they are wanted.
import { stripVTControlCharacters, styleText } from "node:util";

export type Color = "green" | "yellow" | "red" | "dim" | "bold";

/** A text in a colour. Each cell is coloured as a whole, or not at all. */
export type Cell = string | { readonly text: string; readonly color: Color };

/** A heading and rows with two spaces between the columns; a table without rows is empty. Control characters are taken out. */
export function formatTable(headings: readonly string[], rows: readonly (readonly Cell[])[], colors: boolean): string {
  if (rows.length === 0) return "";
  const all: (readonly Cell[])[] = [headings.map((text) => ({ text, color: "dim" })), ...rows];
  const widths = headings.map((_, column) => Math.max(...all.map((row) => textOf(row[column] ?? "").length)));
  const lines = all.map((row) => row.map((cell, column) => paint(cell, column === row.length - 1 ? 0 : (widths[column] ?? 0), colors)).join("  "));
  return `${lines.map((line) => line.trimEnd()).join("\n")}\n`;
}

/** Text in a colour, or as it is. */
export function colored(text: string, color: Color, colors: boolean): string {
  return colors ? styleText(color, text, { validateStream: false }) : text;
}

/** On one line, and without anything that steers the terminal. */
export function plainLine(text: string): string {
  return stripVTControlCharacters(text).replaceAll(/[\p{Cc}\p{Cf}]+/gu, " ");
}

function textOf(cell: Cell): string {
  return plainLine(typeof cell === "string" ? cell : cell.text);
}

function paint(cell: Cell, width: number, colors: boolean): string {
  const text = textOf(cell);
  const padding = " ".repeat(Math.max(0, width - text.length));
  return `${typeof cell === "string" ? text : colored(text, cell.color, colors)}${padding}`;
}
