/** Slots of a cluster. */
const slotCount = 16_384

/** The slot of a key, or of its tag: CRC-16/XMODEM. */
function slotOf (text: string): number {
  let crc = 0
  for (const byte of Buffer.from(text)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = (crc & 0x8000) === 0 ? crc << 1 : (crc << 1) ^ 0x1021
    crc &= 0xffff
  }
  return crc % slotCount
}

/** One tag for each partition, whose slots are spread evenly: each lies in another part of all slots. Bare numbers would collide. */
function tagsOf (partitions: number): string[] {
  const tags: string[] = []
  for (let n = 0, found = 0; found < partitions; n++) {
    const part = Math.floor(slotOf(`p${n}`) * partitions / slotCount)
    if (tags[part] !== undefined) continue
    tags[part] = `p${n}`
    found++
  }
  return tags
}

/** The names of keys and channels. All those of a topic have the tag of its partition, so that a cluster keeps them on one server. */
export class Keys {
  readonly #beginnings: readonly string[]
  /** By partition. */
  readonly slots: readonly number[]

  constructor (prefix: string, partitions: number) {
    const tags = tagsOf(partitions)
    this.#beginnings = tags.map(tag => `${prefix}:${partitions}:{${tag}}`)
    this.slots = tags.map(slotOf)
  }

  /** The partition of a topic, by FNV-1a. The same on all nodes and in all versions. */
  partitionOf (topic: string): number {
    let hash = 0x811c9dc5
    for (let i = 0; i < topic.length; i++) hash = Math.imul(hash ^ topic.charCodeAt(i), 0x01000193)
    return (hash >>> 0) % this.slots.length
  }

  channel (topic: string): string { return this.#of(topic, 'c') }

  /** The keys of a topic: its metadata, its messages, its fences, and the order of its values. */
  topic (topic: string): [meta: string, messages: string, fences: string, order: string] {
    return [this.#of(topic, 'm'), this.#of(topic, 's'), this.#of(topic, 'f'), this.#of(topic, 'z')]
  }

  /** A topic and a mid may contain any character, so the length of the topic tells where it ends. */
  mid (topic: string, mid: string): string { return `${this.#of(topic, 'i')}:${topic.length}:${mid}` }

  /** A key or channel of no topic. @param partition - the one whose server has it */
  other (partition: number, name: string): string { return `${this.#beginnings[partition]}:${name}` }

  #of (topic: string, kind: string): string {
    return `${this.#beginnings[this.partitionOf(topic)]}:${kind}:${topic}`
  }
}
