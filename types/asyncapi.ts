/** The contract document of an app's topics: AsyncAPI 3.0.0 (https://www.asyncapi.com/docs/reference/specification/v3.0.0). */

/** A reference to another part of the document, such as `#/components/messages/hello`. */
export interface AsyncApiReference { $ref: string }

/** A JSON Schema of draft-7; `true`: any JSON. */
export type AsyncApiSchema = boolean | { [keyword: string]: unknown }

/** About the API. Further members are those of AsyncAPI: `termsOfService`, `contact`, `license`, `tags`, `externalDocs`. */
export interface AsyncApiInfo {
  title: string
  version: string
  /** CommonMark. */
  description?: string
  [member: string]: unknown
}

/** A server that the channels are on. */
export interface AsyncApiServer {
  /** Name or address, with the port unless that is the scheme's own. */
  host: string
  /** `ws` or `wss`. */
  protocol: string
  pathname?: string
  description?: string
  [member: string]: unknown
}

/** A parameter of an address: the part of a family's topic behind the stem. */
export interface AsyncApiParameter { description?: string, enum?: string[], default?: string, examples?: string[] }

/** A topic, or a family of topics. */
export interface AsyncApiChannel {
  /** The path of the URL. The name of a parameter stands in braces. */
  address: string
  title?: string
  summary?: string
  description?: string
  /** The messages in both directions, by a name that is unique in the channel. */
  messages: Record<string, AsyncApiReference>
  parameters?: Record<string, AsyncApiParameter>
  bindings?: { ws?: { method?: 'GET', query?: AsyncApiSchema, bindingVersion?: string }, [protocol: string]: unknown }
  [member: string]: unknown
}

/** The frames that the server sends to a channel (`send`), or gets from its members (`receive`). */
export interface AsyncApiOperation {
  /** From the point of view of the server. */
  action: 'send' | 'receive'
  channel: AsyncApiReference
  title?: string
  summary?: string
  description?: string
  messages: AsyncApiReference[]
  /** The frames that answer those of the operation. */
  reply?: { channel?: AsyncApiReference, messages?: AsyncApiReference[] }
  [member: string]: unknown
}

/** One kind of frame. */
export interface AsyncApiMessage {
  name: string
  title?: string
  summary?: string
  description?: string
  payload: AsyncApiSchema
  correlationId?: { location: string, description?: string }
  examples?: { name?: string, summary?: string, payload: unknown }[]
  [member: string]: unknown
}

/** The document that `rooms.asyncapi()` returns. Each call returns a new object, which the caller may change. */
export interface AsyncApiDocument {
  asyncapi: '3.0.0'
  info: AsyncApiInfo
  defaultContentType: string
  /** Absent if no server is known. */
  servers?: Record<string, AsyncApiServer>
  channels: Record<string, AsyncApiChannel>
  operations: Record<string, AsyncApiOperation>
  components: {
    /** The schemas of payloads and presence info, and the host's shared schemas that they refer to. */
    schemas: Record<string, AsyncApiSchema>
    messages: Record<string, AsyncApiMessage>
    [member: string]: unknown
  }
  [member: string]: unknown
}

/** The parts of the document besides the topics. */
export interface AsyncApiOptions {
  /**
   * Default: the title `Rooms` and the version `0.0.0`. The close codes are added to the description. Other members are those of AsyncAPI
   * (`contact`, `license`, …).
   */
  info?: Partial<AsyncApiInfo>
  /** The servers, by name. Default of `rooms.asyncapi`: none. Default of the routes: the host and the scheme of the request. */
  servers?: Record<string, AsyncApiServer>
}
