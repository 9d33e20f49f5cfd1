/** Holds our zod schemas against what `query-qmp-schema` of a live QEMU says. */
import { z } from "zod";

/** QAPI introspection (QEMU docs, "client JSON protocol introspection"); `any` builtins take everything. */
const entity = z.object({
  name: z.string(),
  "meta-type": z.enum(["command", "event", "object", "array", "enum", "builtin", "alternate"]),
  "arg-type": z.string().optional(),
  "ret-type": z.string().optional(),
  "element-type": z.string().optional(),
  "json-type": z.string().optional(),
  members: z
    .array(
      z.object({
        name: z.string().optional(),
        type: z.string().default(""),
        default: z.unknown().optional(),
      }),
    )
    .optional(),
  variants: z.array(z.object({ type: z.string() })).optional(),
});
type Entity = z.infer<typeof entity>;

export class QmpSchema {
  readonly #entities: Map<string, Entity>;

  constructor(reply: unknown) {
    this.#entities = new Map(
      z
        .array(entity)
        .parse(reply)
        .map((one) => [
          `${one["meta-type"] === "command" || one["meta-type"] === "event" ? "x:" : ""}${one.name}`,
          one,
        ]),
    );
  }

  /** What is wrong with our idea of a command or event; empty when QEMU agrees. */
  check(name: string, ours: { args?: z.ZodType; reply?: z.ZodType; data?: z.ZodType }): string[] {
    const found = this.#entities.get(`x:${name}`);
    if (found === undefined) return [`${name}: unknown to this QEMU`];
    return [
      ...(ours.args === undefined ? [] : this.#argument(name, ours.args, found["arg-type"] ?? "")),
      ...(ours.reply === undefined ? [] : this.#result(name, ours.reply, found["ret-type"] ?? "")),
      ...(ours.data === undefined ? [] : this.#result(name, ours.data, found["arg-type"] ?? "")),
    ];
  }

  /** Members of an object; those of a union's branches count as optional. */
  #members(object: Entity): NonNullable<Entity["members"]> {
    const branches = (object.variants ?? []).flatMap((one) => this.#entities.get(one.type)?.members ?? []);
    return [...(object.members ?? []), ...branches.map((member) => ({ ...member, default: null }))];
  }

  /** Arguments: every one of ours exists with our type, and every mandatory one is mandatory with us. */
  #argument(where: string, ours: z.ZodType, type: string): string[] {
    const theirs = this.#entities.get(type);
    if (ours instanceof z.ZodArray && theirs?.["meta-type"] === "array") {
      return this.#argument(`${where}[]`, ours.element as z.ZodType, theirs["element-type"] ?? "");
    }
    if (!(ours instanceof z.ZodObject)) return this.#result(where, ours, type);
    const members = theirs?.members ?? [];
    const shape = ours.shape as Record<string, z.ZodType>;
    const problems = members
      .filter((member) => member.name !== undefined && !("default" in member))
      .filter(
        (member) => shape[member.name as string] === undefined || shape[member.name as string]?.isOptional(),
      )
      .map((member) => `${where}: mandatory argument ${member.name} is missing or optional`);
    for (const [name, field] of Object.entries(shape)) {
      const member = members.find((one) => one.name === name);
      if (member === undefined) problems.push(`${where}: no argument ${name}`);
      else problems.push(...this.#argument(`${where}.${name}`, unwrap(field), member.type));
    }
    return problems;
  }

  /** Results: every member we read exists with our type, and is one we can rely on if we do. */
  #result(where: string, ours: z.ZodType, type: string): string[] {
    const theirs = this.#entities.get(type);
    if (ours instanceof z.ZodUnknown) return [];
    if (theirs === undefined) return [`${where}: no such type`];
    if (ours instanceof z.ZodArray) {
      if (theirs["meta-type"] !== "array") return [`${where}: not an array`];
      return this.#result(`${where}[]`, ours.element as z.ZodType, theirs["element-type"] ?? "");
    }
    if (ours instanceof z.ZodObject) {
      if (theirs["meta-type"] !== "object") return [`${where}: not an object`];
      return Object.entries(ours.shape as Record<string, z.ZodType>).flatMap(([name, field]) => {
        const member = this.#members(theirs).find((one) => one.name === name);
        if (member === undefined) return [`${where}: no member ${name}`];
        const risky = "default" in member && !field.isOptional();
        return [
          ...(risky ? [`${where}.${name}: optional in QEMU, relied on by us`] : []),
          ...this.#result(`${where}.${name}`, unwrap(field), member.type),
        ];
      });
    }
    const isText = ours instanceof z.ZodString || ours instanceof z.ZodEnum;
    const want = isText ? "string" : ours instanceof z.ZodBoolean ? "boolean" : "number";
    const json = theirs["meta-type"] === "enum" ? "string" : theirs["json-type"];
    const same = json === want || json === "value" || (want === "number" && json === "int");
    return same ? [] : [`${where}: is ${json ?? theirs["meta-type"]}, not ${want}`];
  }
}

function unwrap(field: z.ZodType): z.ZodType {
  return field instanceof z.ZodOptional ? (field.unwrap() as z.ZodType) : field;
}
