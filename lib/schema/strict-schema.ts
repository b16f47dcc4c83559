import { areDisjoint, factsOf } from './facts.ts'
import { referencesOf, type Resolve } from './references.ts'
import { isSchema, mapSchemas, mapValues, schemasOf, type Schema } from './walk.ts'

const alternatives = ['anyOf', 'oneOf'] as const
const branches = ['then', 'else'] as const
const dependents = ['dependentSchemas', 'dependencies'] as const

/** Returns the choices of a schema. Each is a list of schemas of which one at a time applies to the same value, and may declare members of it. */
function choices (schema: Schema): Schema[][] {
  return [
    ...alternatives.map(keyword => schemasOf(schema[keyword])),
    branches.map(keyword => schema[keyword]).filter(isSchema)
  ].filter(({ length }) => length > 0)
}

/** Returns the schemas, other than choices and a `$ref`, that all apply to the same value as this one. */
function parts (schema: Schema): Schema[] {
  return [...schemasOf(schema['allOf']), ...dependents.flatMap(keyword => Object.values(isSchema(schema[keyword]) ? schema[keyword] : {}).filter(isSchema))]
}

/** The members that a schema declares for one value, together with the schemas that are composed with it. */
interface Declared {
  /** The number of parts that declare each member. */
  readonly names: Map<string, number>
  /** The number of parts that declare the members that match each pattern. */
  readonly patterns: Map<string, number>
  /** The number of parts that describe the items of an array. */
  items: number
  /** Whether a part states itself whether other members are allowed. */
  statesOthers: boolean
  /** Whether a part describes other members by a schema, or by a keyword that cannot be followed here. */
  describesOthers: boolean
  /** The members that a part requires, and the keyword that requires each. */
  readonly demands: Map<string, string>
}

function empty (): Declared {
  return { names: new Map(), patterns: new Map(), items: 0, statesOthers: false, describesOthers: false, demands: new Map() }
}

function merge (into: Declared, from: Declared, count: (one: number, other: number) => number): void {
  for (const member of ['names', 'patterns'] as const) {
    from[member].forEach((value, name) => { into[member].set(name, count(into[member].get(name) ?? 0, value)) })
  }
  into.items = count(into.items, from.items)
  into.statesOthers ||= from.statesOthers
  into.describesOthers ||= from.describesOthers
  from.demands.forEach((keyword, name) => { into.demands.set(name, keyword) })
}

const sum = (one: number, other: number): number => one + other

function demandsOf (schema: Schema): Map<string, string> {
  const demands = new Map<string, string>()
  const add = (keyword: string, names: unknown): void => {
    for (const name of Array.isArray(names) ? names : []) if (typeof name === 'string') demands.set(name, keyword)
  }
  add('required', schema['required'])
  for (const keyword of ['dependencies', 'dependentRequired']) {
    for (const names of Object.values(isSchema(schema[keyword]) ? schema[keyword] : {})) add(keyword, names)
  }
  return demands
}

/** @throws if a `$ref` cannot be followed, or a schema is composed with itself */
function targetOf (schema: Schema, resolve: Resolve, seen: readonly Schema[]): { schema: Schema, shared: boolean, resolve: Resolve } {
  const target = resolve(schema['$ref'])
  if (target === undefined) throw new Error(`"$ref": ${JSON.stringify(schema['$ref'])} is composed with other keywords, and its target cannot be found: replace it by the schema that it refers to`)
  if (seen.includes(target.schema)) throw new Error(`"$ref": ${JSON.stringify(schema['$ref'])} composes a schema with itself`)
  return target
}

function declared (schema: Schema, resolve: Resolve, seen: readonly Schema[] = []): Declared {
  const all = empty()
  const within = [...seen, schema]
  Object.keys(isSchema(schema['properties']) ? schema['properties'] : {}).forEach(name => { all.names.set(name, 1) })
  Object.keys(isSchema(schema['patternProperties']) ? schema['patternProperties'] : {}).forEach(pattern => { all.patterns.set(pattern, 1) })
  if (['items', 'prefixItems', 'additionalItems'].some(keyword => keyword in schema)) all.items = 1
  all.statesOthers = ['additionalProperties', 'unevaluatedProperties', '$dynamicRef'].some(keyword => keyword in schema)
  all.describesOthers = isSchema(schema['additionalProperties']) || isSchema(schema['unevaluatedProperties']) || '$dynamicRef' in schema
  demandsOf(schema).forEach((keyword, name) => { all.demands.set(name, keyword) })
  for (const part of parts(schema)) merge(all, declared(part, resolve, within), sum)
  if ('$ref' in schema) {
    const target = targetOf(schema, resolve, within)
    merge(all, declared(target.schema, target.resolve, within), sum)
  }
  for (const choice of choices(schema)) {
    // A member that each alternative declares is declared once, because one alternative applies at a time.
    const most = empty()
    for (const part of choice) merge(most, declared(part, resolve, within), Math.max)
    merge(all, most, sum)
  }
  return all
}

function matches (pattern: string, name: string): boolean {
  try {
    return new RegExp(pattern, 'u').test(name)
  } catch {
    return true // the compiler refuses this schema
  }
}

/** Whether no name matches both patterns, because they begin with different text. */
function areApart (one: string, other: string): boolean {
  const [first, second] = [one, other].map(pattern => /^\^([\w-]+)(?![\w*?{|-])(?!.*\|)/.exec(pattern)?.[1])
  return first !== undefined && second !== undefined && !first.startsWith(second) && !second.startsWith(first)
}

/** Whether the schema of a member may be made strict, because it is the only declaration that applies to the member. */
function isDeclaredOnce ({ names, patterns, describesOthers }: Declared, name: string): boolean {
  return !describesOthers && names.get(name) === 1 && ![...patterns.keys()].some(pattern => matches(pattern, name))
}

/** Whether the schema of a pattern may be made strict, because it is the only declaration that applies to the members that match it. */
function isPatternAlone ({ names, patterns, describesOthers }: Declared, pattern: string): boolean {
  return !describesOthers && patterns.get(pattern) === 1 && ![...names.keys()].some(name => matches(pattern, name)) &&
    [...patterns.keys()].every(other => other === pattern || areApart(other, pattern))
}

/** Makes the schemas of one document strict. */
class StrictCopier {
  readonly #resolve: Resolve

  constructor (resolve: Resolve) {
    this.#resolve = resolve
  }

  strictCopy (schema: unknown): unknown {
    if (!isSchema(schema)) return schema
    // A reference without declarations beside it stays as it is, because its target is made strict in its own place.
    if ('$ref' in schema && !isComposedWithRef(schema)) return this.#copyDefinitions({ ...schema })

    const isComposed = '$ref' in schema || parts(schema).length > 0 || branches.some(keyword => isSchema(schema[keyword])) ||
      choices(schema).length + (declaresAnything(schema) ? 1 : 0) > 1
    if (!isComposed) {
      const own = declared({ ...schema, anyOf: undefined, oneOf: undefined }, this.#resolve)
      const copy = this.#copyPart(schema, own, true)
      return declaresMembers(schema) ? seal(copy, own, schema) : copy
    }
    const all = declared(schema, this.#resolve)
    const copy = this.#copyPart(schema, all, false)
    return all.names.size === 0 && all.patterns.size === 0 ? copy : seal(copy, all, schema)
  }

  /** Makes the schemas below one part of a composition strict. The part itself is not, because the other parts declare members, too. */
  #copyPart (part: Schema, all: Declared, isAlone: boolean): Schema {
    const copy = this.#copyDefinitions({ ...part })
    const { properties, patternProperties } = part
    if (isSchema(properties)) copy['properties'] = mapValues(properties, (inner, name) => isDeclaredOnce(all, name) ? this.strictCopy(inner) : this.#plainCopy(inner))
    if (isSchema(patternProperties)) copy['patternProperties'] = mapValues(patternProperties, (inner, pattern) => isPatternAlone(all, pattern) ? this.strictCopy(inner) : this.#plainCopy(inner))
    for (const keyword of ['items', 'prefixItems', 'additionalItems']) {
      const value = part[keyword]
      if (value === undefined) continue
      const each = (inner: unknown): unknown => all.items === 1 ? this.strictCopy(inner) : this.#plainCopy(inner)
      copy[keyword] = Array.isArray(value) ? value.map(each) : each(value)
    }
    if (isSchema(part['additionalProperties'])) copy['additionalProperties'] = isAlone ? this.strictCopy(part['additionalProperties']) : this.#plainCopy(part['additionalProperties'])
    // The schemas of conditions and negations are not made strict, because that would change their meaning.
    for (const keyword of ['if', 'not', 'contains']) if (isSchema(part[keyword])) copy[keyword] = this.#plainCopy(part[keyword])

    const copyInner = (inner: unknown): unknown => !isSchema(inner) ? inner : isAlone ? this.strictCopy(inner) : this.#copyPart(inner, all, false)
    if (Array.isArray(part['allOf'])) copy['allOf'] = part['allOf'].map(copyInner)
    for (const keyword of branches) if (isSchema(part[keyword])) copy[keyword] = copyInner(part[keyword])
    for (const keyword of dependents) if (isSchema(part[keyword])) copy[keyword] = mapValues(part[keyword], copyInner)
    if (Array.isArray(part['anyOf'])) copy['anyOf'] = part['anyOf'].map(copyInner)
    if (Array.isArray(part['oneOf'])) this.#copyOneOf(copy, part['oneOf'], part['oneOf'].map(copyInner), isAlone)
    if ('$ref' in part) this.#inline(copy, part, inner => this.#copyPart(inner, all, false))
    return copy
  }

  /** Replaces a reference by a copy of its target, because the target itself is strict for its other references. A shared schema stays a reference. */
  #inline (copy: Schema, schema: Schema, each: (target: Schema) => Schema): void {
    const target = this.#resolve(schema['$ref'])
    if (target === undefined || target.shared) return
    const { $id, $defs, definitions, ...inlined } = each(target.schema)
    delete copy['$ref']
    append(copy, inlined)
  }

  #copyDefinitions (copy: Schema): Schema {
    for (const keyword of ['$defs', 'definitions']) {
      const map = copy[keyword]
      if (isSchema(map)) copy[keyword] = mapValues(map, inner => this.strictCopy(inner))
    }
    return copy
  }

  /**
   * Makes `oneOf` strict. A value that two branches take is refused, but would be taken if one of them, made strict, refused it. If branches
   * overlap so, the given branches decide how many take a value, and an `anyOf` of strict ones which members it has.
   */
  #copyOneOf (copy: Schema, given: unknown[], strict: unknown[], isAlone: boolean): void {
    copy['oneOf'] = strict
    const changed = given.map((branch, index) => JSON.stringify(branch) !== JSON.stringify(strict[index]) || JSON.stringify(branch).includes('"$ref"'))
    const overlap = given.some((one, index) => given.some((other, at) => at > index && (changed[index]! || changed[at]!) && !this.#areApart(one, other, isAlone, copy['type'] === 'object')))
    if (!overlap) return
    copy['oneOf'] = given.map(branch => this.#plainCopy(branch))
    append(copy, { anyOf: strict })
  }

  /** Whether no value is taken by both schemas, nor by one of them made strict and by the other as it is. */
  #areApart (one: unknown, other: unknown, isAlone: boolean, isObject: boolean): boolean {
    if (one === false || other === false) return true
    const [first, second] = [one, other].map(branch => factsOf(branch, this.#resolve)) as [ReturnType<typeof factsOf>, ReturnType<typeof factsOf>]
    for (const of of ['types', 'values'] as const) {
      if (first[of] !== null && second[of] !== null && areDisjoint(first[of], second[of])) return true
    }
    const areObjects = isObject || [first, second].some(({ types }) => types?.size === 1 && types.has('object'))
    if (!areObjects) return false
    const isTag = (name: string): boolean => second.required.has(name) && first.required.has(name) && second.members.has(name) && areDisjoint(first.members.get(name)!, second.members.get(name)!)
    if ([...first.members.keys()].some(isTag)) return true
    return isAlone && this.#lacks(one, second.required) && this.#lacks(other, first.required)
  }

  /** Whether a schema, made strict, refuses one of these members. */
  #lacks (schema: unknown, required: ReadonlySet<string>): boolean {
    if (!isSchema(schema)) return false
    const { names, patterns, statesOthers } = declared(schema, this.#resolve)
    return names.size > 0 && patterns.size === 0 && !statesOthers && [...required].some(name => !names.has(name))
  }

  /**
   * Returns a copy that is not strict, and has no reference to a schema that is made strict elsewhere.
   * @throws for a schema that refers to itself
   */
  #plainCopy (schema: unknown, seen: readonly Schema[] = []): unknown {
    if (!isSchema(schema)) return schema
    const within = [...seen, schema]
    const copy = mapSchemas(schema, inner => this.#plainCopy(inner, within))
    if (!('$ref' in schema)) return copy
    const target = this.#resolve(schema['$ref'])
    if (target !== undefined && within.includes(target.schema)) {
      throw new Error(`"$ref": ${JSON.stringify(schema['$ref'])} refers to itself in a place that cannot be made strict (in "if", "not", "contains", an overlapping "oneOf", or a member that two parts declare): give it "additionalProperties", and make the branches disjoint`)
    }
    this.#inline(copy, schema, inner => this.#plainCopy(inner, within) as Schema)
    return copy
  }
}

function append (schema: Schema, part: Schema): void {
  schema['allOf'] = [...(Array.isArray(schema['allOf']) ? schema['allOf'] : []), part]
}

function declaresMembers (schema: Schema): boolean {
  return 'properties' in schema || 'patternProperties' in schema
}

function declaresItems (schema: Schema): boolean {
  return ['items', 'prefixItems', 'additionalItems'].some(keyword => keyword in schema)
}

/** Whether a schema itself has keywords about members or items, apart from the schemas that are composed with it. */
function declaresAnything (schema: Schema): boolean {
  return declaresMembers(schema) || declaresItems(schema) || 'additionalProperties' in schema || 'unevaluatedProperties' in schema
}

function isComposedWithRef (schema: Schema): boolean {
  return declaresAnything(schema) || parts(schema).length > 0 || choices(schema).length > 0
}

/**
 * Refuses undeclared members at one level, unless the schema states itself whether they are allowed.
 * @throws if an undeclared member is required
 */
function seal (copy: Schema, { names, patterns, statesOthers, demands }: Declared, given: Schema): Schema {
  if (statesOthers) return copy
  const isPatterned = (name: string): boolean => [...patterns.keys()].some(pattern => matches(pattern, name))
  for (const [name, keyword] of demands) {
    if (!names.has(name) && !isPatterned(name)) {
      throw new Error(`"${keyword}" requires ${JSON.stringify(name)}, which is not declared, so that every value would be refused: declare it in "properties", or give "additionalProperties"`)
    }
  }
  const own = isSchema(given['properties']) ? given['properties'] : {}
  const ownPatterns = isSchema(given['patternProperties']) ? given['patternProperties'] : {}
  const more = [...names.keys()].filter(name => !Object.hasOwn(own, name) && !isPatterned(name)).map(name => [name, {}])
  if ([...patterns.keys()].every(pattern => Object.hasOwn(ownPatterns, pattern))) {
    // Members that another part declares get an empty schema here, so that additionalProperties does not refuse them.
    if (isSchema(copy['properties']) || more.length > 0) copy['properties'] = { ...Object.fromEntries(more), ...(isSchema(copy['properties']) ? copy['properties'] : {}) }
    copy['additionalProperties'] = false
  } else {
    // Members that match a pattern are left out, because Ajv's strict mode refuses a member in `properties` that matches a pattern.
    const plain = [...names.keys()].filter(name => !isPatterned(name)).map(name => [name, {}])
    append(copy, { properties: Object.fromEntries(plain), patternProperties: Object.fromEntries([...patterns.keys()].map(pattern => [pattern, {}])), additionalProperties: false })
  }
  return copy
}

/**
 * Returns a strict copy of a JSON Schema: at every depth, an object schema that declares members, and does not state whether others are
 * allowed, refuses undeclared members. The copy never takes a value that the given schema refuses. A schema with `additionalProperties`
 * (`true` included) keeps it, and shared schemas behind a `$ref` are not changed. Compositions (`allOf`, a condition, `dependencies`, `$ref`
 * or alternatives beside `properties`) are made strict as a whole.
 * @throws an error that names the keyword, if the strict copy would refuse every value, or a `$ref` cannot be followed
 */
export function strictSchema (schema: unknown, shared: Record<string, unknown> = {}): unknown {
  return isSchema(schema) ? new StrictCopier(referencesOf(schema, shared)).strictCopy(schema) : schema
}
