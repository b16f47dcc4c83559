import type { Peer, Topic } from './model.ts'

/** A client of several topics on one connection. Leads each frame to the peer of its topic: each membership is a peer of its own. */
export class Wire {
  readonly user: string
  /** Frames that concern the connection. */
  readonly own: string[] = []
  /** Malformed frames that name no topic, which it has sent. */
  malformed = 0
  /** The close that the server sends to it. */
  ending: { code: number, reason: string } | undefined
  /** The host has kicked its user. */
  isKicked = false
  /** Peers that have joined a topic which another of this connection had joined. */
  readonly seconds = new Set<Peer>()
  /** The client has disconnected by itself. */
  gone = false
  closed: { code: number, reason: string } | undefined
  send: (frame: unknown) => void = () => {}
  leave: () => void = () => {}
  readonly #fault: (text: string) => void
  /** By topic: the peers that were sent hello, and not bye or the answer to their leave. */
  readonly #current = new Map<Topic, Peer>()
  /** By the `ref` of each frame that was sent for them. */
  readonly #asked = new Map<string, Peer>()

  constructor (user: string, fault: (text: string) => void) {
    this.user = user
    this.#fault = text => { fault(`${user}: ${text}`) }
  }

  get peers (): Peer[] { return [...new Set(this.#asked.values())] }
  get isOver (): boolean { return this.gone || this.ending !== undefined || this.closed !== undefined }

  /** Whether another peer joins the same topic, so that it is not known for which of them the server takes a frame. */
  hasRival (peer: Peer): boolean {
    return this.peers.some(other => other !== peer && other.topic === peer.topic && other.closed === undefined && other.leaveRef === undefined)
  }

  /** The peer that has sent a frame. */
  sender (ref: unknown): Peer { return this.#asked.get(ref as string)! }

  /** Sends a frame for a peer's topic. */
  say (peer: Peer, { type, ...rest }: { type: string, ref?: string | undefined }): void {
    if (type === 'ping') {
      this.send({ type, ...rest })
      return
    }
    if (rest.ref !== undefined) this.#asked.set(rest.ref, peer)
    this.send({ type, topic: peer.topic, ...rest })
  }

  receive (text: string): void {
    const { topic, ...frame } = JSON.parse(text)
    if (topic === undefined) {
      this.own.push(text)
      if (frame.type === 'ack') for (const peer of this.#current.values()) peer.received.push(text)
      return
    }
    if (!text.startsWith(`{"type":"${frame.type}","topic":"${topic}",`)) this.#fault(`the topic does not stand behind the type: ${text.slice(0, 60)}`)
    const bare = JSON.stringify(frame)
    if (frame.type === 'ack') this.#answered(topic, frame, bare)
    else if (frame.type === 'hello') this.#greeted(topic, frame.ref, bare)
    else if (frame.type !== 'error' || !['FST_ROOMS_NOT_JOINED', 'FST_ROOMS_NO_SUCH_SESSION'].includes(frame.error.code)) this.#told(topic, frame, bare)
  }

  /** Call this when the connection has closed. */
  end (closed: { code: number, reason: string }): void {
    this.closed = closed
    for (const peer of this.peers) peer.closed ??= closed
  }

  #greeted (topic: Topic, ref: string, bare: string): void {
    const peer = this.#asked.get(ref)
    if (peer?.topic !== topic || peer.received.length > 0 || this.#current.has(topic)) this.#fault(`hello of ${topic} to ${ref}`)
    this.#current.set(topic, peer!)
    peer!.received.push(bare)
  }

  #answered (topic: Topic, { ref, ok, error, close }: any, bare: string): void {
    const peer = this.#asked.get(ref)
    if (peer?.topic !== topic) {
      this.#fault(`an ack of ${topic} to ${ref}`)
      return
    }
    const isCurrent = this.#current.get(topic) === peer
    const code = error?.code
    if (ref === peer.joinRef) {
      if (ok === true || isCurrent || peer.refused !== undefined) this.#fault(`an ack to a join of ${topic}: ${bare}`)
      peer.refused = `${code} ${close}`
      peer.closed = { code: close, reason: '' }
    } else if (ref === peer.leaveRef) {
      if (ok !== isCurrent && peer.refused === undefined) this.#fault(`${topic} was left: ${bare}`)
      if (isCurrent) {
        this.#current.delete(topic)
        peer.closed = { code: 1000, reason: '' }
      }
    } else if (code === 'FST_ROOMS_NOT_JOINED') {
      if (isCurrent) this.#fault(`a member of ${topic} was told ${bare}`)
      peer.unjoined.push(ref)
    } else if (isCurrent || peer.closed === undefined || code !== 'FST_ROOMS_BAD_FRAME') peer.received.push(bare)
  }

  #told (topic: Topic, { type, code, reason }: any, bare: string): void {
    const peer = this.#current.get(topic)
    if (peer === undefined) {
      this.#fault(`a frame of ${topic}, which is not joined: ${bare.slice(0, 100)}`)
      return
    }
    peer.received.push(bare)
    if (type !== 'bye') return
    peer.closed = { code, reason }
    this.#current.delete(topic)
  }
}
