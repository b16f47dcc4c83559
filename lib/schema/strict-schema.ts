import { areDisjoint, factsOf } from './facts.ts'
import { referencesOf, type Resolve } from './references.ts'
import { isSchema, mapSchemas, mapValues, schemasOf, type Schema } from './walk.ts'

const alternatives = ['anyOf', 'oneOf'] as const
const branches = ['then', 'else'] as const
const dependents = ['dependentSchemas', 'dependencies'] as const

/** Schemas of which one at a time speaks about the same value as this one, and may declare members of it. */
function choices (schema: Schema): Schema[][] {
  return [
    ...alternatives.map(keyword => schemasOf(schema[keyword])),
    branches.map(keyword => schema[keyword]).filter(isSchema)
  ].filter(({ length }) => length > 0)
}

/** The schemas, other than choices and a `$ref`, that all speak about the same value as this one. */
function parts (schema: Schema): Schema[] {
  return [...schemasOf(schema['allOf']), ...dependents.flatMap(keyword => Object.values(isSchema(schema[keyword]) ? schema[keyword] : {}).filter(isSchema))]
}

/** The members that a schema, with all that is composed with it, declares for one value. */
interface Declared {
  /** How many parts declare each member. */
  readonly names: Map<string, number>
  /** How many parts declare the members that match each pattern. */
  readonly patterns: Map<string, number>
  /** How many parts describe the items of an array. */
  items: number
  /** A part says itself what becomes of other members. */
  saysItself: boolean
  /** A part describes other members by a schema, or in a way that is not known here. */
  describesOthers: boolean
  /** The members that a part demands, and the keyword that does. */
  readonly demands: Map<string, string>
}

function empty (): Declared {
  return { names: new Map(), patterns: new Map(), items: 0, saysItself: false, describesOthers: false, demands: new Map() }
}

function merge (into: Declared, from: Declared, count: (one: number, other: number) => number): void {
  for (const member of ['names', 'patterns'] as const) {
    from[member].forEach((value, name) => { into[member].set(name, count(into[member].get(name) ?? 0, value)) })
  }
  into.items = count(into.items, from.items)
  into.saysItself ||= from.saysItself
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
  if (target === undefined) throw new Error(`"$ref": ${JSON.stringify(schema['$ref'])} is composed with other keywords, and it cannot be told what it declares: write out what it refers to`)
  if (seen.includes(target.schema)) throw new Error(`"$ref": ${JSON.stringify(schema['$ref'])} composes a schema with itself`)
  return target
}

function declared (schema: Schema, resolve: Resolve, seen: readonly Schema[] = []): Declared {
  const all = empty()
  const within = [...seen, schema]
  Object.keys(isSchema(schema['properties']) ? schema['properties'] : {}).forEach(name => { all.names.set(name, 1) })
  Object.keys(isSchema(schema['patternProperties']) ? schema['patternProperties'] : {}).forEach(pattern => { all.patterns.set(pattern, 1) })
  if (['items', 'prefixItems', 'additionalItems'].some(keyword => keyword in schema)) all.items = 1
  all.saysItself = ['additionalProperties', 'unevaluatedProperties', '$dynamicRef'].some(keyword => keyword in schema)
  all.describesOthers = isSchema(schema['additionalProperties']) || isSchema(schema['unevaluatedProperties']) || '$dynamicRef' in schema
  demandsOf(schema).forEach((keyword, name) => { all.demands.set(name, keyword) })
  for (const part of parts(schema)) merge(all, declared(part, resolve, within), sum)
  if ('$ref' in schema) {
    const target = targetOf(schema, resolve, within)
    merge(all, declared(target.schema, target.resolve, within), sum)
  }
  for (const choice of choices(schema)) {
    // One alternative speaks at a time, so a member that each of them declares is declared once.
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
    return true // The compiler refuses it.
  }
}

/** Whether no name matches both: they begin with different text. */
function areApart (one: string, other: string): boolean {
  const [first, second] = [one, other].map(pattern => /^\^([\w-]+)(?![\w*?{|-])(?!.*\|)/.exec(pattern)?.[1])
  return first !== undefined && second !== undefined && !first.startsWith(second) && !second.startsWith(first)
}

/** Whether closing may reach what is declared for a member: one declaration alone is for it. */
function isDeclaredOnce ({ names, patterns, describesOthers }: Declared, name: string): boolean {
  return !describesOthers && names.get(name) === 1 && ![...patterns.keys()].some(pattern => matches(pattern, name))
}

function isPatternAlone ({ names, patterns, describesOthers }: Declared, pattern: string): boolean {
  return !describesOthers && patterns.get(pattern) === 1 && ![...names.keys()].some(name => matches(pattern, name)) &&
    [...patterns.keys()].every(other => other === pattern || areApart(other, pattern))
}

/** Closes the schemas of one document. */
class Closer {
  readonly #resolve: Resolve

  constructor (resolve: Resolve) {
    this.#resolve = resolve
  }

  close (schema: unknown): unknown {
    if (!isSchema(schema)) return schema
    // A reference with nothing beside it that declares: what it refers to is closed where it stands.
    if ('$ref' in schema && !isComposedWithRef(schema)) return this.#closeDefinitions({ ...schema })

    const isComposed = '$ref' in schema || parts(schema).length > 0 || branches.some(keyword => isSchema(schema[keyword])) ||
      choices(schema).length + (declaresAnything(schema) ? 1 : 0) > 1
    if (!isComposed) {
      const own = declared({ ...schema, anyOf: undefined, oneOf: undefined }, this.#resolve)
      const copy = this.#closePart(schema, own, true)
      return declaresMembers(schema) ? seal(copy, own, schema) : copy
    }
    const all = declared(schema, this.#resolve)
    const copy = this.#closePart(schema, all, false)
    return all.names.size === 0 && all.patterns.size === 0 ? copy : seal(copy, all, schema)
  }

  /** Closes what stands below one part of a composition. The part itself stays open, since the others declare members, too. */
  #closePart (part: Schema, all: Declared, isAlone: boolean): Schema {
    const copy = this.#closeDefinitions({ ...part })
    const { properties, patternProperties } = part
    if (isSchema(properties)) copy['properties'] = mapValues(properties, (inner, name) => isDeclaredOnce(all, name) ? this.close(inner) : this.#open(inner))
    if (isSchema(patternProperties)) copy['patternProperties'] = mapValues(patternProperties, (inner, pattern) => isPatternAlone(all, pattern) ? this.close(inner) : this.#open(inner))
    for (const keyword of ['items', 'prefixItems', 'additionalItems']) {
      const value = part[keyword]
      if (value === undefined) continue
      const each = (inner: unknown): unknown => all.items === 1 ? this.close(inner) : this.#open(inner)
      copy[keyword] = Array.isArray(value) ? value.map(each) : each(value)
    }
    if (isSchema(part['additionalProperties'])) copy['additionalProperties'] = isAlone ? this.close(part['additionalProperties']) : this.#open(part['additionalProperties'])
    // A condition and a negation would mean something else if what they refer to were closed.
    for (const keyword of ['if', 'not', 'contains']) if (isSchema(part[keyword])) copy[keyword] = this.#open(part[keyword])

    const closeInner = (inner: unknown): unknown => !isSchema(inner) ? inner : isAlone ? this.close(inner) : this.#closePart(inner, all, false)
    if (Array.isArray(part['allOf'])) copy['allOf'] = part['allOf'].map(closeInner)
    for (const keyword of branches) if (isSchema(part[keyword])) copy[keyword] = closeInner(part[keyword])
    for (const keyword of dependents) if (isSchema(part[keyword])) copy[keyword] = mapValues(part[keyword], closeInner)
    if (Array.isArray(part['anyOf'])) copy['anyOf'] = part['anyOf'].map(closeInner)
    if (Array.isArray(part['oneOf'])) this.#closeOneOf(copy, part['oneOf'], part['oneOf'].map(closeInner), isAlone)
    if ('$ref' in part) this.#inline(copy, part, inner => this.#closePart(inner, all, false))
    return copy
  }

  /** In place of a reference the schema itself, if it is not a shared one: others refer to it, too, and to them it is closed. */
  #inline (copy: Schema, schema: Schema, each: (target: Schema) => Schema): void {
    const target = this.#resolve(schema['$ref'])
    if (target === undefined || target.shared) return
    const { $id, $defs, definitions, ...inlined } = each(target.schema)
    delete copy['$ref']
    append(copy, inlined)
  }

  #closeDefinitions (copy: Schema): Schema {
    for (const keyword of ['$defs', 'definitions']) {
      const map = copy[keyword]
      if (isSchema(map)) copy[keyword] = mapValues(map, inner => this.close(inner))
    }
    return copy
  }

  /**
   * Of `oneOf`, a value that two branches take is refused. If one of them, closed, refused it, it would be taken: then the branches as
   * they are decide how many take it, and the closed ones which members it has.
   */
  #closeOneOf (copy: Schema, given: unknown[], closed: unknown[], isAlone: boolean): void {
    copy['oneOf'] = closed
    const changed = given.map((branch, index) => JSON.stringify(branch) !== JSON.stringify(closed[index]) || JSON.stringify(branch).includes('"$ref"'))
    const overlap = given.some((one, index) => given.some((other, at) => at > index && (changed[index]! || changed[at]!) && !this.#areApart(one, other, isAlone, copy['type'] === 'object')))
    if (!overlap) return
    copy['oneOf'] = given.map(branch => this.#open(branch))
    append(copy, { anyOf: closed })
  }

  /** Whether no value is taken by both, or by one of them closed and by the other as it is. */
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

  /** Whether a schema, closed, refuses one of these members. */
  #lacks (schema: unknown, required: ReadonlySet<string>): boolean {
    if (!isSchema(schema)) return false
    const { names, patterns, saysItself } = declared(schema, this.#resolve)
    return names.size > 0 && patterns.size === 0 && !saysItself && [...required].some(name => !names.has(name))
  }

  /** A copy that refers to nothing that is closed elsewhere. @throws for a schema that refers to itself */
  #open (schema: unknown, seen: readonly Schema[] = []): unknown {
    if (!isSchema(schema)) return schema
    const within = [...seen, schema]
    const copy = mapSchemas(schema, inner => this.#open(inner, within))
    if (!('$ref' in schema)) return copy
    const target = this.#resolve(schema['$ref'])
    if (target !== undefined && within.includes(target.schema)) {
      throw new Error(`"$ref": ${JSON.stringify(schema['$ref'])} refers to itself where closing cannot reach (in "if", "not", "contains", an overlapping "oneOf", or a member that two parts declare): say "additionalProperties" in it, and tell the branches apart`)
    }
    this.#inline(copy, schema, inner => this.#open(inner, within) as Schema)
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

/** Whether a schema by itself, without what is composed with it, says anything of members or items. */
function declaresAnything (schema: Schema): boolean {
  return declaresMembers(schema) || declaresItems(schema) || 'additionalProperties' in schema || 'unevaluatedProperties' in schema
}

function isComposedWithRef (schema: Schema): boolean {
  return declaresAnything(schema) || parts(schema).length > 0 || choices(schema).length > 0
}

/** Refuses, at one level, members that nothing declares, unless the schema says itself what becomes of them. @throws if one is demanded that is not declared */
function seal (copy: Schema, { names, patterns, saysItself, demands }: Declared, given: Schema): Schema {
  if (saysItself) return copy
  const isPatterned = (name: string): boolean => [...patterns.keys()].some(pattern => matches(pattern, name))
  for (const [name, keyword] of demands) {
    if (!names.has(name) && !isPatterned(name)) {
      throw new Error(`"${keyword}" demands ${JSON.stringify(name)}, which is not declared, so that nothing would be taken: declare it in "properties", or say "additionalProperties"`)
    }
  }
  const own = isSchema(given['properties']) ? given['properties'] : {}
  const ownPatterns = isSchema(given['patternProperties']) ? given['patternProperties'] : {}
  const more = [...names.keys()].filter(name => !Object.hasOwn(own, name) && !isPatterned(name)).map(name => [name, {}])
  if ([...patterns.keys()].every(pattern => Object.hasOwn(ownPatterns, pattern))) {
    // Members that another part declares are named here without a demand, so that additionalProperties leaves them to it.
    if (isSchema(copy['properties']) || more.length > 0) copy['properties'] = { ...Object.fromEntries(more), ...(isSchema(copy['properties']) ? copy['properties'] : {}) }
    copy['additionalProperties'] = false
  } else {
    // Ajv's strict mode refuses a member beside a pattern that it matches.
    const plain = [...names.keys()].filter(name => !isPatterned(name)).map(name => [name, {}])
    append(copy, { properties: Object.fromEntries(plain), patternProperties: Object.fromEntries([...patterns.keys()].map(pattern => [pattern, {}])), additionalProperties: false })
  }
  return copy
}

/**
 * A copy of a JSON Schema in which an object that lists its members, and is silent about others, refuses others, at every depth. It
 * never takes what the given schema refuses. A schema that says `additionalProperties` itself (`true` included) keeps its word, and so do
 * shared schemas behind a `$ref`. Compositions (`allOf`, a condition, `dependencies`, `$ref` or alternatives beside `properties`) are closed
 * as a whole.
 *
 * @throws an error that names the keyword, if closing would leave nothing to take, or what is declared cannot be told
 */
export function closeSchema (schema: unknown, shared: Record<string, unknown> = {}): unknown {
  return isSchema(schema) ? new Closer(referencesOf(schema, shared)).close(schema) : schema
}
