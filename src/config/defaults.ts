// Fills in the defaults of the schema. ajv's own useDefaults does not reach into the branches of a choice.
import { CONFIG_SCHEMA, type Schema, childSchema, schemaOf } from "./schema.ts";

/** A copy of the data in which every property that has a default is there. Aliased objects become copies of their own. */
export function withDefaults(data: unknown, schema: Schema = CONFIG_SCHEMA): unknown {
  if (typeof data !== "object" || data === null) return data;
  const found = schemaOf(schema, data);
  if (Array.isArray(data)) return data.map((item) => withDefaults(item, found.items ?? {}));
  const copy = Object.create(null) as Record<string, unknown>;
  for (const [key, value] of Object.entries(data)) copy[key] = withDefaults(value, childSchema(found, key) ?? {});
  for (const [key, property] of Object.entries(found.properties ?? {})) {
    if (!Object.hasOwn(copy, key) && property.default !== undefined) copy[key] = withDefaults(structuredClone(property.default), property);
  }
  return copy;
}
