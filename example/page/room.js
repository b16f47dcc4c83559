/* global clearInterval, clearTimeout, location, setInterval, setTimeout, WebSocket, fetch */

const mostKept = 200 // messages that the page asks for
const firstBound = 500
const lastBound = 20_000

/**
 * Returns the milliseconds until the next attempt, or `null` if there must be none. The range of the close code decides, so no
 * table of codes is needed. Chance spreads the clients that a restart has cut off all at once.
 */
export function delayAfter (code, attempt, retry) {
  const final = code === 1000 || code === 1002 || code === 1003 || (code >= 1007 && code <= 1010)
  if (final || (code >= 4000 && code < 4100)) return null // the same request would be refused again
  if (code >= 4300 && code < 4400) return null // the server wants new credentials, and this page has none
  if (retry !== undefined) return retry.min + Math.random() * (retry.max - retry.min)
  const least = code >= 4100 && code < 4200 ? 1_000 : 0
  return least + Math.random() * Math.min(lastBound, firstBound * 2 ** attempt)
}

/**
 * One topic over a bare WebSocket: begins with the messages that the topic keeps, receives and sends frames, and reconnects after a loss. It then gets what it has
 * missed, or, if that is no longer kept, reads what there is.
 */
export class Room {
  #topic
  #options
  #socket
  #timer
  #pinging
  #attempt = 0
  #position
  #retry
  #refs = 0
  #unanswered = new Map()
  /** Messages to come that were published before the page joined for the first time. */
  #kept = 0
  /** Frames that wait until the kept messages have been read. */
  #held
  /** The ids of messages that have been read, and that may still come. */
  #known = new Set()

  /** @param options - `query()` returns more parameters for the URL; `onFrame(frame, isOld)`, old ones being messages from before the first join; `onStatus(state, { wait?, reason? })`, the state being connecting, open, waiting or stopped. */
  constructor (topic, options) {
    this.#topic = topic
    this.#options = options
  }

  /** Connects. If the next attempt is waiting for its time, makes it at once. */
  open () {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#socket !== undefined) return
    this.#options.onStatus('connecting', {})
    const url = this.#url()
    url.protocol = url.protocol.replace('http', 'ws')
    const socket = this.#socket = new WebSocket(url)
    let joined = false
    socket.addEventListener('message', ({ data }) => {
      const frame = JSON.parse(data)
      joined ||= frame.type === 'hello'
      if (frame.type === 'hello' && frame.heartbeat > 0) this.#watch(socket, frame.heartbeat)
      this.#receive(frame)
    })
    socket.addEventListener('close', ({ code, reason }) => { if (this.#socket === socket) this.#lost(code, reason, joined) })
  }

  /** A browser hides the server's pings, so the page sends pings of its own, and gives up a socket that does not answer. */
  #watch (socket, interval) {
    clearInterval(this.#pinging)
    let answered = true
    this.#pinging = setInterval(() => {
      if (answered) {
        answered = false
        this.request({ type: 'ping' }).then(() => { answered = true }, () => {})
      } else {
        socket.close()
        this.#lost(1006, '', true) // its own close event may take minutes
      }
    }, interval)
  }

  /** Ends a wait for the next attempt, because the network is back or the page is visible again. */
  wake () {
    if (this.#timer !== undefined) this.open()
  }

  get connected () {
    return this.#socket?.readyState === WebSocket.OPEN
  }

  /** Sends a frame that wants an ack; resolves with the ack, rejects with its error. */
  request (frame) {
    return new Promise((resolve, reject) => {
      if (!this.connected) {
        reject(new Error('Not connected. Send it again once the connection is back.'))
        return
      }
      const ref = ++this.#refs
      this.#unanswered.set(ref, { resolve, reject })
      this.#socket.send(JSON.stringify({ ...frame, ref }))
    })
  }

  #url () {
    const url = new URL(`/${this.#topic}`, location.href)
    for (const [name, value] of Object.entries(this.#options.query?.() ?? {})) url.searchParams.set(name, value)
    url.searchParams.set('since', this.#position ?? '0')
    return url
  }

  #receive (frame) {
    if (frame.type === 'hello') {
      this.#attempt = 0
      this.#retry = undefined
      this.#options.onStatus('open', {})
      this.#known.clear()
      this.#kept = frame.recovered === undefined ? frame.replayed : 0
      if (frame.recovered === false) {
        this.#reload(frame)
        return
      }
    }
    if (frame.type === 'bye') this.#retry = frame.retry
    if (frame.type === 'ack') this.#settle(frame)
    else if (this.#held !== undefined) this.#held.push(frame)
    else this.#pass(frame)
  }

  #pass (frame) {
    if (frame.type === 'hello' || frame.type === 'message') this.#position = frame.id
    if (frame.type === 'message' && this.#known.delete(frame.id)) return
    const isOld = frame.type === 'message' && this.#kept > 0
    if (isOld) this.#kept--
    this.#options.onFrame(frame, isOld)
  }

  /** Reads the messages that are kept, because some are missing behind the position that this page had. Until they are there, that position stays. */
  async #reload (hello) {
    const held = this.#held = []
    const url = this.#url()
    url.searchParams.delete('since')
    url.searchParams.set('limit', mostKept)
    let messages = []
    try {
      const response = await fetch(url)
      if (response.ok) messages = (await response.json()).messages
    } catch {
      // Then the page goes on without them.
    }
    if (this.#held !== held) return // the connection was lost meanwhile
    this.#held = undefined
    this.#pass(hello)
    for (const message of messages) {
      this.#options.onFrame({ type: 'message', ...message }, false)
      this.#known.add(message.id)
    }
    for (const frame of held) this.#pass(frame)
  }

  #settle ({ ref, ok, error, ...ack }) {
    const waiting = this.#unanswered.get(ref)
    this.#unanswered.delete(ref)
    if (ok) waiting?.resolve(ack)
    else waiting?.reject(Object.assign(new Error(error.message), error))
  }

  async #lost (code, reason, joined) {
    this.#socket = undefined
    this.#held = undefined
    clearInterval(this.#pinging)
    for (const { reject } of this.#unanswered.values()) reject(new Error('The connection was lost before the answer came, so this may not have arrived.'))
    this.#unanswered.clear()

    const wait = delayAfter(code, this.#attempt++, this.#retry)
    this.#retry = undefined
    const refusal = wait === null ? reason || `closed with ${code}` : joined ? undefined : await this.#refusal()
    if (this.#socket !== undefined) return // opened again while the answer was on its way
    if (refusal !== undefined) {
      this.#options.onStatus('stopped', { reason: refusal })
      return
    }
    this.#options.onStatus('waiting', { wait })
    this.#timer = setTimeout(() => { this.open() }, wait)
  }

  /** Returns why an upgrade was refused. A browser hides that of an upgrade, but a GET of the same URL, which reads without joining, is refused alike. */
  async #refusal () {
    try {
      const response = await fetch(this.#url())
      if (response.ok || response.status === 429 || response.status >= 500) return undefined
      return (await response.json()).message
    } catch {
      return undefined // no server answers; it may come back
    }
  }
}
