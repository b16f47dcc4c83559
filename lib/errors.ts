import createError from '@fastify/error'

/**
 * The error codes of this package: every export is an error class, named by its code. docs/errors.md lists when each is thrown and what to do;
 * a test compares the two.
 */

// Registration: thrown while the app boots.
export const FST_ROOMS_INVALID_OPTION = createError<[string, string, string]>('FST_ROOMS_INVALID_OPTION', 'option "%s" takes %s; got %s', 500, TypeError)
export const FST_ROOMS_INVALID_TOPIC_OPTION = createError<[string, string]>('FST_ROOMS_INVALID_TOPIC_OPTION', 'topic "%s": %s', 500, TypeError)
export const FST_ROOMS_INVALID_SCHEMA = createError<[string, string, string]>('FST_ROOMS_INVALID_SCHEMA', 'topic "%s": "%s" is not a JSON Schema that can be compiled: %s', 500, TypeError)
export const FST_ROOMS_OPEN_BROADCAST = createError<[string]>('FST_ROOMS_OPEN_BROADCAST', 'topic "%s" has a broadcast route ("post") that every client could call: give "authorize" or hooks in "routes.broadcast" (to allow every client, authorize: () => true)', 500)
export const FST_ROOMS_HANDLER_MISSING = createError<[string]>('FST_ROOMS_HANDLER_MISSING', 'topic "%s" has different schemas in "publish" and "message": give an "onMessage" for it that converts one into the other', 500)
export const FST_ROOMS_NO_HISTORY = createError<[string]>('FST_ROOMS_NO_HISTORY', 'topic "%s" has "history", which this broker does not keep: give another "broker", or "history: false"', 500)
export const FST_ROOMS_BROKER_UNSUITABLE = createError<[string]>('FST_ROOMS_BROKER_UNSUITABLE', 'the server of the broker is not suitable: %s', 500)
export const FST_ROOMS_NO_SHARED_PRESENCE = createError<[string]>('FST_ROOMS_NO_SHARED_PRESENCE', 'topic "%s" has "presence", and this broker lacks the capability "presence": its members on other nodes would not be seen. Give another "broker", or declare the topic without it ("*" is the open lobby)', 500)
export const FST_ROOMS_NO_CLUSTER = createError<[string]>('FST_ROOMS_NO_CLUSTER', 'no cluster: %s', 500)
export const FST_ROOMS_ALREADY_REGISTERED = createError('FST_ROOMS_ALREADY_REGISTERED', 'this scope or a parent of it already has app.rooms: register the plugin once, or in sibling scopes, which have separate rooms', 500)
export const FST_ROOMS_ROUTE_TAKEN = createError<[string, string, string]>('FST_ROOMS_ROUTE_TAKEN', 'the route %s %s is taken: give the plugin a "prefix" of its own%s', 500)
export const FST_ROOMS_WEBSOCKET_REGISTERED = createError('FST_ROOMS_WEBSOCKET_REGISTERED', 'the host registered @fastify/websocket itself: give "websocket.options" there instead', 500)
export const FST_ROOMS_WEBSOCKET_TOO_OLD = createError('FST_ROOMS_WEBSOCKET_TOO_OLD', 'the ws that @fastify/websocket loads does not bound the fragments of a message: it must be 8.23.0 or newer (npm ls ws, npm update ws), and its options maxFragments and maxBufferedChunks must not be undefined', 500)
export const FST_ROOMS_DRAIN_TOO_LONG = createError<[number, number]>('FST_ROOMS_DRAIN_TOO_LONG', 'drain.timeout (%d ms) must be below Fastify\'s pluginTimeout (%d ms), which also bounds closing', 500)

// Requests: answered with this status before the upgrade, or by a broadcast route.
export const FST_ROOMS_UPGRADE_REQUIRED = createError('FST_ROOMS_UPGRADE_REQUIRED', 'this URL is upgraded to a WebSocket, and to no other protocol', 426)
export const FST_ROOMS_NOT_ACCEPTABLE = createError('FST_ROOMS_NOT_ACCEPTABLE', 'a GET of a topic is answered with application/json, which "Accept" does not take', 406)
export const FST_ROOMS_BAD_WAIT = createError<[string]>('FST_ROOMS_BAD_WAIT', '"wait" %s', 400)
export const FST_ROOMS_BAD_SUBPROTOCOL = createError<[string]>('FST_ROOMS_BAD_SUBPROTOCOL', 'none of the subprotocols offered is known: offer %s, or none at all', 400)
export const FST_ROOMS_BODY_MISSING = createError('FST_ROOMS_BODY_MISSING', 'a JSON body is required', 400)
export const FST_ROOMS_BAD_IDEMPOTENCY_KEY = createError<[number, number]>('FST_ROOMS_BAD_IDEMPOTENCY_KEY', 'the header Idempotency-Key takes one string of %d to %d characters of ASCII, with or without quotes', 400)
export const FST_ROOMS_BODY_TIMEOUT = createError<[number]>('FST_ROOMS_BODY_TIMEOUT', 'the body did not arrive within %d ms', 408)
export const FST_ROOMS_ORIGIN_REFUSED = createError('FST_ROOMS_ORIGIN_REFUSED', 'this origin may not use the rooms', 403)
export const FST_ROOMS_TOKEN_EXPIRED = createError('FST_ROOMS_TOKEN_EXPIRED', 'these credentials have expired', 401)
export const FST_ROOMS_DRAINING = createError('FST_ROOMS_DRAINING', 'the server is draining: it does not accept joins', 503)
export const FST_ROOMS_OVERLOADED = createError<[string]>('FST_ROOMS_OVERLOADED', 'overloaded: %s; try again', 503)
export const FST_ROOMS_INVALID_IDENTITY = createError<[string, string]>('FST_ROOMS_INVALID_IDENTITY', '%s returned %s', 500)

// Topics, payloads and permission: thrown to code, and answered over HTTP and in frames.
export const FST_ROOMS_NO_SUCH_TOPIC = createError<[string]>('FST_ROOMS_NO_SUCH_TOPIC', 'there is no topic "%s"', 404)
export const FST_ROOMS_INVALID_PAYLOAD = createError<[string]>('FST_ROOMS_INVALID_PAYLOAD', 'invalid payload: %s', 400)
export const FST_ROOMS_FORBIDDEN = createError<[string]>('FST_ROOMS_FORBIDDEN', 'not allowed: %s', 403)
export const FST_ROOMS_CLOSED = createError('FST_ROOMS_CLOSED', 'the app has closed', 503)
export const FST_ROOMS_BROKER_DOWN = createError('FST_ROOMS_BROKER_DOWN', 'the broker refused, or could not be reached; try again', 503)
export const FST_ROOMS_STALE = createError<[number]>('FST_ROOMS_STALE', 'version %d is older than that of the value which is kept', 409)
export const FST_ROOMS_NOT_A_STREAM = createError<[string]>('FST_ROOMS_NOT_A_STREAM', 'topic "%s" is not a stream: give it the option "stream: true"', 500)
export const FST_ROOMS_STREAM_TAKEN = createError<[string]>('FST_ROOMS_STREAM_TAKEN', 'stream "%s" has a producer, which alone writes to it', 409)
export const FST_ROOMS_STREAM_ENDED = createError<[string]>('FST_ROOMS_STREAM_ENDED', 'stream "%s" has ended: nothing can be added to it', 410)
export const FST_ROOMS_BROKER_SILENT = createError<[string, number]>('FST_ROOMS_BROKER_SILENT', 'the broker has not answered %s within %d ms', 503)
export const FST_ROOMS_NOT_LISTED = createError<[string]>('FST_ROOMS_NOT_LISTED', 'the broker does not list %s over all nodes; those of this node alone: { local: true }', 500)
export const FST_ROOMS_BROKER_FAULT = createError<[string]>('FST_ROOMS_BROKER_FAULT', 'the broker has broken its contract: %s', 500)

// Told of by the broker's state: in the log, and to subscribers of the channel.
export const FST_ROOMS_BROKER_UNREADABLE = createError<[string]>('FST_ROOMS_BROKER_UNREADABLE', 'bytes from the broker are ignored, because they cannot be read: %s. Do nodes of another version, or other programs, publish under its prefix?', 500)
export const FST_ROOMS_PUBLICATION_TOO_LARGE = createError<[string, number, number]>('FST_ROOMS_PUBLICATION_TOO_LARGE', 'a publication of topic "%s" is not sent, because it has %d bytes, and the broker\'s server takes %d', 413)

// Frames of members: answered by an ack or error frame.
export const FST_ROOMS_BAD_FRAME = createError<[string]>('FST_ROOMS_BAD_FRAME', 'bad frame: %s', 400)
export const FST_ROOMS_FRAME_TOO_LARGE = createError<[number, number]>('FST_ROOMS_FRAME_TOO_LARGE', 'a frame of %d bytes is over the limit of %d', 413)
export const FST_ROOMS_RATE_LIMITED = createError<[string]>('FST_ROOMS_RATE_LIMITED', 'too fast: %s', 429)
export const FST_ROOMS_INFO_TOO_LARGE = createError<[number, number]>('FST_ROOMS_INFO_TOO_LARGE', 'presence info of %d bytes is over the limit of %d', 413)
export const FST_ROOMS_NO_PRESENCE = createError<[string]>('FST_ROOMS_NO_PRESENCE', 'topic "%s" has no presence', 400)
export const FST_ROOMS_NO_AUTH = createError('FST_ROOMS_NO_AUTH', 'new credentials are not accepted on an open connection: join again with them', 400)
export const FST_ROOMS_HANDLER_FAILED = createError('FST_ROOMS_HANDLER_FAILED', 'the server failed on this message', 500)

// Joins on a connection of several topics: answered by an ack or error frame.
export const FST_ROOMS_ALREADY_JOINED = createError<[string]>('FST_ROOMS_ALREADY_JOINED', 'this connection has joined "%s" already', 409)
export const FST_ROOMS_NOT_JOINED = createError<[string]>('FST_ROOMS_NOT_JOINED', 'this connection has not joined "%s", or has left it', 409)
export const FST_ROOMS_TOO_MANY_TOPICS = createError<[number]>('FST_ROOMS_TOO_MANY_TOPICS', 'a connection joins at most %d topics: leave one first', 409)
export const FST_ROOMS_ROOM_FULL = createError<[string]>('FST_ROOMS_ROOM_FULL', 'topic "%s" has as many members as it may have', 409)
export const FST_ROOMS_JOIN_REFUSED = createError<[string, number, string]>('FST_ROOMS_JOIN_REFUSED', 'the join of "%s" was refused with %d %s', 403)

// Sessions.
export const FST_ROOMS_NO_SUCH_SESSION = createError<[string]>('FST_ROOMS_NO_SUCH_SESSION', 'there is no session "%s" here', 404)
export const FST_ROOMS_SESSION_CLOSED = createError<[string]>('FST_ROOMS_SESSION_CLOSED', 'session "%s" has closed', 410)
export const FST_ROOMS_INVALID_POLICY = createError<[string]>('FST_ROOMS_INVALID_POLICY', 'slow.policy returned %s; it must return "close", "latest" or "drop", and not a promise', 500)
export const FST_ROOMS_SESSION_CLAIMED = createError<[string]>('FST_ROOMS_SESSION_CLAIMED', 'the messages of session "%s" are already being read', 409)
export const FST_ROOMS_ASK_TIMEOUT = createError<[string, number]>('FST_ROOMS_ASK_TIMEOUT', 'session "%s" did not answer within %d ms', 504)
export const FST_ROOMS_NOT_ASKABLE = createError<[string]>('FST_ROOMS_NOT_ASKABLE', 'session "%s" is a raw WebSocket or an event stream, which cannot answer', 409)
export const FST_ROOMS_INVALID_CLOSE = createError<[string]>('FST_ROOMS_INVALID_CLOSE', 'a close takes %s', 500, RangeError)
export const FST_ROOMS_INVALID_SELECTOR = createError<[string, string]>('FST_ROOMS_INVALID_SELECTOR', '%s takes %s', 500, TypeError)
export const FST_ROOMS_INVALID_ARGUMENT = createError<[string, string]>('FST_ROOMS_INVALID_ARGUMENT', '"%s" takes %s', 500, TypeError)

// Streams, metrics, request.rooms and inject: thrown to the host.
export const FST_ROOMS_MESSAGES_LOST = createError<[string]>('FST_ROOMS_MESSAGES_LOST', 'messages of "%s" may have been lost on their way from the broker: subscribe again', 500)
export const FST_ROOMS_SUBSCRIBER_SLOW = createError<[string, number]>('FST_ROOMS_SUBSCRIBER_SLOW', 'the subscriber of "%s" is more than %d messages behind', 500)
export const FST_ROOMS_RESPONSE_ENDED = createError('FST_ROOMS_RESPONSE_ENDED', 'the response has ended: use app.rooms.broadcast', 500)
export const FST_ROOMS_METRICS_REGISTERED = createError<[string]>('FST_ROOMS_METRICS_REGISTERED', 'the registry already has a metric "%s": give another "prefix", or first remove the other metrics with the function that roomsMetrics returned', 500)
export const FST_ROOMS_NO_RESPONSE = createError('FST_ROOMS_NO_RESPONSE', 'request.rooms needs a response, but the request has joined a topic, or a hook that runs before the plugin\'s read request.rooms: use app.rooms.broadcast', 500)
export const FST_ROOMS_INJECT_REFUSED = createError<[number, string]>('FST_ROOMS_INJECT_REFUSED', 'the upgrade was refused with status %d%s', 500)
export const FST_ROOMS_INJECT_TIMEOUT = createError<[string, number, string]>('FST_ROOMS_INJECT_TIMEOUT', 'no%s frame came within %d ms; %s', 500)
export const FST_ROOMS_INJECT_CLOSED = createError<[number, string]>('FST_ROOMS_INJECT_CLOSED', 'the server closed with %d %s', 500)
