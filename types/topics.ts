/**
 * Topics as data, and the types that follow from them.
 *
 * A topic map holds schemas and plain options, no functions, so that a module of topics does not import the application and its types are not
 * circular.
 */

type Flat<T> = { [K in keyof T]: T[K] } & {}
type OptionalKeys<P> = { [K in keyof P]: P[K] extends { '~optional': true } ? K : never }[keyof P]

/** The static type of a `typebox` 1.x schema, inferred from its shape because it has no `static` member. `D`: the definitions that a `Ref` may name. */
type Infer<S, D = {}> = S extends { '~unsafe': infer U } ? U : S extends { '~kind': infer K } ?
  S extends { '~kind': 'Literal', const: infer C } ? C :
    S extends { '~kind': 'Object', properties: infer P } ? Flat<{ [N in Exclude<keyof P, OptionalKeys<P>>]: Infer<P[N], D> } & { [N in OptionalKeys<P>]?: Infer<P[N], D> }> :
      S extends { '~kind': 'Union', anyOf: infer U extends readonly unknown[] } ? Infer<U[number], D> :
        S extends { '~kind': 'Intersect', allOf: infer U } ? Flat<All<U, D>> :
          S extends { '~kind': 'Tuple', items: infer U } ? Each<U, D> :
            S extends { '~kind': 'Array', items: infer I } ? Infer<I, D>[] :
              S extends { '~kind': 'Enum', enum: infer U extends readonly unknown[] } ? U[number] :
                S extends { '~kind': 'Record', patternProperties: infer P } ? Record<string, Infer<P[keyof P], D>> :
                  S extends { '~kind': 'Cyclic', $defs: infer E, $ref: infer R } ? Infer<E[R & keyof E], E> :
                    S extends { '~kind': 'Ref', $ref: infer R extends keyof D } ? Infer<D[R], D> :
                      K extends keyof Scalars ? Scalars[K] : unknown : unknown
interface Scalars { String: string, TemplateLiteral: string, Number: number, Integer: number, Boolean: boolean, Null: null, Any: any, Never: never }
type All<U, D> = U extends readonly [infer H, ...infer R] ? Infer<H, D> & All<R, D> : unknown
type Each<U, D> = U extends readonly [infer H, ...infer R] ? [...(H extends { '~optional': true } ? [Infer<H, D>?] : [Infer<H, D>]), ...Each<R, D>] : U extends readonly [] ? [] : unknown[]

/**
 * The type that a schema describes: inferred for schemas of `@sinclair/typebox` and of `typebox` 1.x, `unknown` for plain JSON Schema.
 */
export type Static<S> = S extends { params: unknown[], static: infer T } ? T : Infer<S>

/** Bounds of one topic; each overrides the option of the same name under `limits`. */
export interface TopicLimits {
  /** Most members of one room of this topic. Default: no bound beside `limits.connections`. Over it: close 4102 `room_full`. */
  members?: number
  /** Largest message of a member, in bytes of its frame, and largest body of the broadcast route. Default: `limits.payload`. */
  payload?: number
  /** Most frames of one member within `per`. Default: `limits.messages`. */
  messages?: number
  /** Milliseconds for `messages`. Default: `limits.per`. */
  per?: number
}

/**
 * The policy for a slow member. `close`: it is closed with 4201, and may reconnect to get the messages that it missed. `latest`: missed messages
 * are conflated to the newest one of each `key`, which is sent when the member has read its buffered bytes. `drop`: missed messages are dropped,
 * and reported by one `gap` frame when it has read them. Private messages are never dropped: a member that exceeds the bound with them is
 * closed under any policy.
 */
export type SlowPolicy = 'close' | 'latest' | 'drop'

/** The policy for slow members of one topic; each member overrides the option of the same name under `slow`. */
export interface TopicSlow {
  policy?: SlowPolicy
  /** Most buffered bytes of one member. */
  bytes?: number
}

/** The messages that a topic keeps: the newest ones, within bounds of which the first that is met applies. */
export interface TopicHistory {
  /** Most messages. Default 100; no bound if `bytes` or `latest` is given. */
  size?: number
  /** Most bytes of them. Default 1,048,576. With `latest`, each value counts 320 bytes and its key besides its message. */
  bytes?: number
  /** Milliseconds from the topic's last publication until all of its messages expire. Default 300,000. */
  ttl?: number
  /** Most bytes that are replayed to one member. A longer replay is refused as a whole (`recovered: false`). Default 1,048,576. */
  replay?: number
  /** The topic keeps the newest message of each `key` instead: state, and not a log. Messages without a key are one value. */
  latest?: true
}

/** Presence with options. An object is this, and not a schema, if it has `grace`. */
export interface TopicPresence {
  /** Schema of a member's presence info. Absent, or `true`: any JSON. */
  info?: true | object
  /**
   * Milliseconds for which the leave of a user is not told, neither in presence frames nor to `onUserLeave`, because the user may come back: 0 to
   * 2,147,483,647; 0: told at once. A session that the user joins meanwhile takes the place of the one that left. Members without an identity leave
   * at once.
   */
  grace: number
}

/** A declared topic, or a family of topics (its key ends in `*`). */
export interface TopicOptions {
  /** Schema of the payloads that members receive. Absent: any JSON. */
  message?: object
  /** Schema of the payloads that members may send; `true`: the `message` schema. Absent: members may not publish. */
  publish?: true | object
  /** Schema of a member's presence info; `true`: any JSON; `{ info?, grace }`: with options. Absent: joins and leaves are not announced. */
  presence?: true | object | TopicPresence
  /** `true`: a broadcast route at the topic's URL; a path: a broadcast route there, under `prefix` (not for families). Absent: no route. */
  post?: true | `/${string}`
  limits?: TopicLimits
  slow?: TopicSlow
  /** The messages that the topic keeps, for members that come back or come late; `true`: the defaults; `false`: none. Default: the option `history`. */
  history?: boolean | TopicHistory
  /**
   * The treatment of messages while the broker does not accept them, for a topic with history. `'wait'`: they are held, in order, up to `limits.publish`. `'local'`: the
   * members of the publishing node get them at once, and no other member ever does; they have no id, are not kept, and the result says `published: false`. When the broker
   * is back, the members of that node are told by a `gap` that the messages they have are not those of the others. Default `'wait'`. A topic without history does the
   * second in any case. Not for streams.
   */
  outage?: 'wait' | 'local'
  /**
   * The topic is a stream: one finite answer, which one producer writes (`rooms.stream`), and which ends. It keeps its messages: by default up to 2,097,152 bytes,
   * for 600,000 milliseconds after the last one, and all of them are replayed. It has no `publish`.
   */
  stream?: true
}

/** The options of topics by name, or family (`chat:*`). */
export type TopicMap = Record<string, TopicOptions>

type Data<O, Known> = { [K in keyof O]: K extends keyof Known ? O[K] extends (...args: never[]) => unknown ? never : O[K] : never }

/** Refuses unknown options and functions, which a constraint on the type parameter does not. */
export type TopicsAsData<T> = { [K in keyof T]: Data<T[K], TopicOptions> & (T[K] extends { limits: infer L } ? { limits: Data<L, TopicLimits> } : unknown) & (T[K] extends { slow: infer S } ? { slow: Data<S, TopicSlow> } : unknown) & (T[K] extends { history: infer H extends object } ? { history: Data<H, TopicHistory> } : unknown) &
  (T[K] extends { presence: infer P extends { grace: unknown } } ? { presence: TopicPresence & Data<P, TopicPresence> } : unknown) &
  (T[K] extends { stream: true } ? { publish?: never, history?: true | (object & { latest?: never }) } : unknown) }

/**
 * The topics of a program. Declare it once to type `app.rooms`, hooks and options everywhere:
 *
 * ```ts
 * declare module 'fastify-rooms' { interface Register { topics: typeof topics } }
 * ```
 */
export interface Register {}

/** The topic map of the open lobby, which applies unless `Register` is declared: any name, any payload. */
export type OpenTopics = Record<string, { publish: true, presence: true }>

/** The topic map in `Register`; that of the open lobby if there is none. */
export type Topics = Register extends { topics: infer T extends TopicMap } ? T : OpenTopics

/** `true` if the topic map declares its topics, so that other names are not topics; `false` for the open lobby. */
export type Closed<T> = string extends keyof T ? false : true

type Pattern<K> = K extends `${infer P}*` ? `${P}${string}` : K

/** The topic names of a map; a family is a template literal. */
export type TopicName<T = Topics> = Closed<T> extends true ? Pattern<keyof T & string> : string

/** The key of the map that a topic name falls under: an exact name goes before a family. */
export type TopicKey<T, N extends string> = N extends keyof T ? N : { [K in keyof T & string]: K extends `${string}*` ? N extends Pattern<K> ? K : never : never }[keyof T & string]

/** The names that fall under one key of the map. */
export type NameOf<K extends string, T = Topics> = Closed<T> extends true ? Pattern<K> : string

type Definition<T, N extends string> = TopicKey<T, N> extends infer K extends keyof T ? T[K] : never

/** The names of topics that are streams. In the open lobby any name, because the topics are not known to the compiler. */
export type StreamName<T = Topics> = Closed<T> extends true ? Pattern<{ [K in keyof T & string]: T[K] extends { stream: true } ? K : never }[keyof T & string]> : string

/** The payload that members of a topic receive. */
export type Message<N extends string, T = Topics> = Definition<T, N> extends { message: infer S } ? Static<S> : unknown

/** The payload that members of a topic may send; `never` if they may not publish. */
export type Publish<N extends string, T = Topics> = Definition<T, N> extends { publish: infer S } ? S extends true ? Message<N, T> : Static<S> : never

/** The presence info of a topic's members. */
export type Info<N extends string, T = Topics> = Definition<T, N> extends { presence: infer S } ? S extends { grace: unknown } ? S extends { info: infer I } ? InfoOf<I> : unknown : InfoOf<S> : unknown
type InfoOf<S> = S extends true ? unknown : Static<S>

/** The payload of a broadcast to a topic. For a union of names it is the payload that each of them takes. */
export type Payload<N extends string, T = Topics> = (N extends unknown ? (payload: Message<N, T>) => 0 : never) extends (payload: infer P) => 0 ? P : never

/** Keys of the topics whose members may publish. */
export type Publishable<T = Topics> = { [K in keyof T & string]: T[K] extends { publish: unknown } ? K : never }[keyof T & string]

/** Keys of the topics whose members send another type than they receive. They need an `onMessage`. */
export type Converted<T = Topics> = Closed<T> extends false ? never : {
  [K in Publishable<T>]: T[K] extends { publish: true } ? never : T[K] extends { publish: infer S, message: infer M } ? [S, M] extends [M, S] ? never : K : K
}[Publishable<T>]
