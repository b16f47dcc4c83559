/** On an http server: the one upgrade guard of all hubs of that server. Shared by all copies of this package. */
export const kUpgradeGuard: unique symbol = Symbol.for('fastify-rooms.upgrade-guard')
/** On an app: all its hubs, in whichever scope. Shared by all copies of this package. */
export const kSiblings: unique symbol = Symbol.for('fastify-rooms.siblings')
/** On a request: what the access hooks found out, for the handler. */
export const kAccess: unique symbol = Symbol('fastify-rooms.access')
/** On `app.rooms`: the hub behind it, for the package's other entries. */
export const kInside: unique symbol = Symbol('fastify-rooms.inside')
/** On the upgrade request of an injected client: is told the server's end of its connection. */
export const kInjected: unique symbol = Symbol('fastify-rooms.injected')
/** On the raw request of an upgrade: its WebSocket will be one of the plugin's. */
export const kJoins: unique symbol = Symbol('fastify-rooms.joins')
/** On a request: its pending broadcasts. */
export const kPending: unique symbol = Symbol('fastify-rooms.pending')
/** On a request: why it was refused. */
export const kRefusal: unique symbol = Symbol('fastify-rooms.refusal')
/** On a request: its reply. */
export const kReply: unique symbol = Symbol('fastify-rooms.reply')
/** On a WebSocket, and on its receiver: its connection. */
export const kConnection: unique symbol = Symbol('fastify-rooms.connection')
