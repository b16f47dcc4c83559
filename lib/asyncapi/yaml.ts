/** Words that YAML 1.1 reads as something else than text, so that they are quoted as keys. */
const reserved = /^(?:y|n|yes|no|on|off|true|false|null)$/i

/** Characters that a double-quoted string of YAML may not hold, or folds. `JSON.stringify` escapes those below the space. */

const special = /[\u007f-\u00a0\u2028\u2029\ufeff\ufffe\uffff]/g

/** Longest key, in characters, that a line of YAML may begin with. */
const maxKeyLength = 1_000

/** Returns a string in double quotes: those of JSON are valid in YAML. */
function quote (text: string): string {
  return JSON.stringify(text).replace(special, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

function scalar (value: unknown): string {
  if (typeof value === 'string') return quote(value)
  // YAML 1.1 reads 1e+21 as text, and 1.0e+21 as a number.
  return typeof value === 'number' ? JSON.stringify(value).replace(/^(-?\d+)e/, '$1.0e') : JSON.stringify(value)
}

function key (name: string): string {
  const text = /^[A-Za-z_][\w-]*$/.test(name) && !reserved.test(name) ? name : quote(name)
  return text.length > maxKeyLength ? `? ${text}\n` : text
}

/** Returns the lines of a value. The first one has no indent, because it may stand behind a dash. */
function lines (value: unknown, indent: string): string[] {
  if (typeof value !== 'object' || value === null) return [scalar(value)]
  const all: string[] = []
  if (Array.isArray(value)) {
    for (const item of value) all.push(`- ${lines(item, `${indent}  `).join(`\n${indent}  `)}`)
    return all.length === 0 ? ['[]'] : all
  }
  for (const [name, inner] of Object.entries(value)) {
    const isBlock = typeof inner === 'object' && inner !== null && Object.keys(inner).length > 0
    const start = key(name).replace(/\n$/, `\n${indent}`)
    all.push(`${start}:${isBlock ? `\n${indent}  ` : ' '}${lines(inner, `${indent}  `).join(`\n${indent}  `)}`)
  }
  return all.length === 0 ? ['{}'] : all
}

/**
 * Returns YAML in block style. All strings are quoted, so that readers of YAML 1.1 and 1.2 agree on them.
 * @param value - JSON
 */
export function toYaml (value: unknown): string {
  return `${lines(value, '').join('\n')}\n`
}
