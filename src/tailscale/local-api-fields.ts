// Reads fields of JSON by Go programs: what is missing or null has the value of its absence, what has another type is an error that names it.

/** The message ends a sentence: "'Self.Tags' is not a list of texts". */
export class FieldError extends Error {}

/** A JSON object and where it stands. */
export class Fields {
  readonly raw: Readonly<Record<string, unknown>>;
  readonly #where: string;

  private constructor(raw: Readonly<Record<string, unknown>>, where: string) {
    this.raw = raw;
    this.#where = where;
  }

  /** @throws {FieldError} when the text is not JSON, or not an object */
  static parse(text: string): Fields {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw new FieldError("it is not JSON");
    }
    if (!isObject(value)) throw new FieldError("it is not a JSON object");
    return new Fields(value, "");
  }

  has(name: string): boolean {
    return this.#get(name) !== null;
  }

  /** "" when absent. */
  text(name: string): string {
    return this.#typed<string>(name, "", isText, "a text");
  }

  /** False when absent. */
  flag(name: string): boolean {
    return this.#typed<boolean>(name, false, (value): value is boolean => typeof value === "boolean", "true or false");
  }

  /** Null when absent. */
  number(name: string): number | null {
    return this.#typed<number | null>(name, null, (value): value is number => typeof value === "number", "a number");
  }

  /** Empty when absent. */
  texts(name: string): readonly string[] {
    return this.#typed<readonly string[]>(name, [], (value): value is string[] => Array.isArray(value) && value.every(isText), "a list of texts");
  }

  /** Null when absent, or Go's zero time. */
  time(name: string): Date | null {
    const text = this.text(name);
    if (text === "") return null;
    const time = new Date(text);
    if (Number.isNaN(time.getTime())) throw this.#wrong(name, "a time");
    return time.getUTCFullYear() <= 1 ? null : time;
  }

  /** Null when absent. */
  object(name: string): Fields | null {
    const value = this.#typed<Readonly<Record<string, unknown>> | null>(name, null, isObject, "an object");
    return value === null ? null : new Fields(value, this.#path(name));
  }

  #get(name: string): unknown {
    // Not what an object has by birth, such as "constructor".
    return Object.hasOwn(this.raw, name) ? (this.raw[name] ?? null) : null;
  }

  #typed<T>(name: string, absent: T, is: (value: unknown) => value is T & {}, what: string): T {
    const value = this.#get(name);
    if (value === null) return absent;
    if (!is(value)) throw this.#wrong(name, what);
    return value;
  }

  #wrong(name: string, what: string): FieldError {
    return new FieldError(`'${this.#path(name)}' is not ${what}`);
  }

  #path(name: string): string {
    return `${this.#where}${this.#where === "" ? "" : "."}${name}`;
  }
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
