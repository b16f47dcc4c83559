import type { AsyncApiDocument } from '../../types/index.ts'
import { closeBehaviour, closeCodes } from '../protocol/close-codes.ts'
import { isSchema, type Schema } from '../schema/walk.ts'
import { closeText, reactions } from './document.ts'
import { commonMessages } from './frames.ts'
import { code, escape, inline, paragraphs, table } from './markup.ts'
import { schemaTable } from './schema-table.ts'
import { follow } from './schemas.ts'
import { style } from './style.ts'

/** Frames whose schema is open when the page is opened. */
const openFrames = ['message', 'publish', 'join']

/** Frames of which the first that there is can be typed into a terminal. */
const typed = ['join', 'publish']

/** Returns the members of an object that are objects. The host's `transform` may have put anything there. */
function members (value: unknown): [string, Schema][] {
  return Object.entries(isSchema(value) ? value : {}).filter((entry): entry is [string, Schema] => isSchema(entry[1]))
}

function list (value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}

/** Returns the last part of a reference: the name of what it leads to. */
function lastOf (ref: unknown): string {
  return String(ref).split('/').at(-1)!
}

/** Writes the page of one document. */
class Page {
  readonly #document: AsyncApiDocument
  readonly #operations: [string, Schema][]

  constructor (document: AsyncApiDocument) {
    this.#document = document
    this.#operations = members(document.operations)
  }

  #follow = (ref: unknown): Schema | undefined => follow(this.#document, ref)

  /** Returns the messages of an operation, or of its reply: their names in the channel. */
  #names (from: unknown): string[] {
    return list(isSchema(from) ? from['messages'] : undefined).map(message => lastOf((message as { $ref?: unknown } | null)?.$ref))
  }

  #message (channel: Schema, name: string): Schema {
    const given = isSchema(channel['messages']) ? channel['messages'][name] : undefined
    return (isSchema(given) ? this.#follow(given['$ref']) ?? given : {})
  }

  /** Returns a frame as the value of its `type`. */
  #typeOf (message: Schema, name: string): string {
    const payload = isSchema(message['payload']) ? message['payload'] : {}
    const properties = isSchema(payload['properties']) ? payload['properties'] : {}
    return isSchema(properties['type']) ? String(properties['type']['const']) : name
  }

  #senders (key: string, channel: Schema): string {
    const rows: string[][] = []
    for (const [, { action, channel: of, reply, ...operation }] of this.#operations) {
      if (lastOf((of as { $ref?: unknown } | null)?.$ref) !== key) continue
      const answers = this.#names(reply).map(name => code(this.#typeOf(this.#message(channel, name), name)))
      for (const name of this.#names(operation)) {
        const message = this.#message(channel, name)
        const meaning = inline(answers.length > 0 ? operation['summary'] ?? '' : message['summary'] ?? '')
        rows.push([action === 'send' ? 'Server' : 'Member', code(this.#typeOf(message, name)), answers.length === 0 ? meaning : `${meaning} Answered by ${answers.join(', ')}.`])
      }
    }
    return table(`Who sends what in ${String(channel['title'])}`, ['Who', 'Frame', 'Meaning'], rows, 'who')
  }

  #frame (label: string, name: string, message: Schema): string {
    const example = list(message['examples']).map(given => (given as { payload?: unknown } | null)?.payload).find(payload => payload !== undefined)
    return `<details${openFrames.includes(name) ? ' open' : ''}>
<summary>${code(this.#typeOf(message, name))} ${inline(message['summary'] ?? '')}</summary>
${message['title'] === undefined ? '' : `<p><strong>${escape(message['title'])}</strong></p>`}
${paragraphs(message['description'])}
${schemaTable(`${label}: ${name}`, message['payload'], this.#follow)}
${example === undefined ? '' : `<p>Example:</p>\n<pre>${escape(JSON.stringify(example))}</pre>`}
</details>`
  }

  /** Returns the URL of a channel, for a terminal. */
  #url (channel: Schema): string {
    const [[, server] = ['', { host: '<host>', protocol: 'ws' } as Schema]] = members(this.#document.servers)
    const parameters = new Map(members(channel['parameters']))
    const path = String(channel['address']).replace(/\{([^}]*)\}/g, (_braces, name: string) => String(list(parameters.get(name)?.['examples'])[0] ?? name))
    return `${String(server['protocol'])}://${String(server['host'])}${String(server['pathname'] ?? '').replace(/\/$/, '')}${path}`
  }

  #topic (key: string, channel: Schema): string {
    const title = String(channel['title'] ?? key)
    const own = Object.keys(isSchema(channel['messages']) ? channel['messages'] : {}).filter(name => !Object.hasOwn(commonMessages, name))
      .sort((one, other) => Number(openFrames.includes(other)) - Number(openFrames.includes(one)))
    const sent = typed.flatMap(name => list(this.#message(channel, name)['examples']))[0] as { payload?: unknown } | undefined
    const id = `topic-${key}`
    return `<section aria-labelledby="${escape(id)}">
<h2 id="${escape(id)}">${escape(title)}</h2>
<p>${code(channel['address'])}</p>
${paragraphs(channel['description'])}
<h3>Who sends what</h3>
${this.#senders(key, channel)}
<h3>Frames of this topic</h3>
${own.map(name => this.#frame(title, name, this.#message(channel, name))).join('\n')}
<h3>Try it</h3>
<pre>npx wscat -c '${escape(this.#url(channel))}'${sent?.payload === undefined ? '' : `\n&gt; ${escape(JSON.stringify(sent.payload))}`}</pre>
</section>`
  }

  #common (channels: [string, Schema][]): string {
    const used = new Set(channels.flatMap(([, { messages }]) => Object.keys(isSchema(messages) ? messages : {})))
    const frames = members(this.#document.components?.messages).filter(([name]) => used.has(name) && Object.hasOwn(commonMessages, name))
    return frames.map(([name, message]) => this.#frame('All topics', name, message)).join('\n')
  }

  /** @param links - the address of the document, up to `json` or `yaml` */
  html (links: string): string {
    const { info } = this.#document
    const channels = members(this.#document.channels)
    const about = String(info?.description ?? '').replace(closeText, '')
    const codes = Object.entries(closeCodes).map(([number, name]) => [code(number), code(name), reactions[closeBehaviour(Number(number))]])
    return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(info?.title)}</title>
<style>${style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the topics</a>
<header>
<h1>${escape(info?.title)} <span class="quiet">${escape(info?.version)}</span></h1>
${paragraphs(about)}
<p>The contract of the topics, as an AsyncAPI ${escape(this.#document.asyncapi)} document: <a href="${escape(links)}json">JSON</a>, <a href="${escape(links)}yaml">YAML</a>.</p>
</header>
<nav aria-label="On this page">
<ul>
${channels.map(([key, { title }]) => `<li><a href="#${escape(encodeURIComponent(`topic-${key}`))}">${escape(title ?? key)}</a></li>`).join('\n')}
<li><a href="#frames">Frames of all topics</a></li>
<li><a href="#close-codes">Close codes</a></li>
</ul>
</nav>
<main id="main" tabindex="-1">
${channels.map(([key, channel]) => this.#topic(key, channel)).join('\n')}
<section aria-labelledby="frames">
<h2 id="frames">Frames of all topics</h2>
${this.#common(channels)}
</section>
<section aria-labelledby="close-codes">
<h2 id="close-codes">Close codes</h2>
<p>The range of a code tells a client how to react.</p>
${table('Close codes', ['Code', 'Reason', 'Reaction of a client'], codes, 'codes')}
</section>
</main>
</body>
</html>
`
  }
}

/**
 * Returns the page of a document, without scripts. All of the document's text is escaped.
 * @param links - the address of the document, up to `json` or `yaml`
 */
export function pageOf (document: AsyncApiDocument, links: string): string {
  return new Page(document).html(links)
}
