// The type of the generated validator.js.
import type { ErrorObject } from "ajv";

/** Whether the data is a configuration; what is wrong stands in `errors` until the next call. */
export declare const validate: { (data: unknown): boolean; readonly errors?: readonly ErrorObject[] | null };
