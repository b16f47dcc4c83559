import { createHash } from 'node:crypto'

/** Characters of a token. A longer one becomes its hash, because a server takes at most 4 KiB for the line of a command. */
const maxToken = 400

/** A name as one token of a subject. Names may have dots, spaces and wildcards, which mean something else there. */
function token (name: string): string {
  const encoded = Buffer.from(name).toString('base64url')
  // No name is encoded with `~`, so that no hash is equal to another name.
  return encoded.length > maxToken ? `~${createHash('sha256').update(name).digest('base64url')}` : encoded
}

/** The subjects of a broker, all below one prefix. */
export class Subjects {
  readonly #prefix: string
  /** Control messages for all nodes. */
  readonly all: string

  constructor (prefix: string) {
    this.#prefix = prefix
    this.all = `${prefix}.a`
  }

  /** Entries of a topic. */
  topic (topic: string): string { return `${this.#prefix}.t.${token(topic)}` }
  /** Control messages for one node. */
  node (node: string): string { return `${this.#prefix}.n.${token(node)}` }
  /** Control messages for the nodes that hold a user. */
  user (user: string): string { return `${this.#prefix}.u.${token(user)}` }
  /** Answers of the server to one node; `*` stands for all of them. */
  reply (node: string, id: number | string): string { return `${this.#prefix}.r.${token(node)}.${id}` }
}
