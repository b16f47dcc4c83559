/** On an http server: the upgrade guard of all hubs of that server, shared by all copies of this package. */
export const kUpgradeGuard: unique symbol = Symbol.for('fastify-rooms.upgrade-guard')
/** On the root app: the hubs of all its scopes, which drain together. Shared by all copies of this package. */
export const kDrainedHubs: unique symbol = Symbol.for('fastify-rooms.drained-hubs')
/** On a request: the result of the access hooks, for the handler. */
export const kAccess: unique symbol = Symbol('fastify-rooms.access')
/** On `app.rooms`: its hub, for the other entry points of the package. */
export const kInside: unique symbol = Symbol('fastify-rooms.inside')
/** On the upgrade request of an injected client: the function that receives the server's WebSocket. */
export const kInjected: unique symbol = Symbol('fastify-rooms.injected')
/** On the raw request of an upgrade: `true` if its WebSocket will be one of the plugin's. */
export const kJoins: unique symbol = Symbol('fastify-rooms.joins')
/** On a request: its pending broadcasts. */
export const kPending: unique symbol = Symbol('fastify-rooms.pending')
/** On a request: the reason for which it was refused. */
export const kRefusal: unique symbol = Symbol('fastify-rooms.refusal')
/** On a request: its reply. */
export const kReply: unique symbol = Symbol('fastify-rooms.reply')
/** On a WebSocket, and on its receiver: its connection. */
export const kConnection: unique symbol = Symbol('fastify-rooms.connection')
/** On a socket: the responses of members that wait for an earlier response of the same connection. */
export const kWaiting: unique symbol = Symbol('fastify-rooms.waiting')
