/** Sample characters of the classes that a backslash names; of those in capitals, characters outside the class. */
const classes: Readonly<Record<string, string>> = { d: '1', D: 'a', w: 'a', W: '-', s: ' ', S: 'a', b: '', B: '', t: '\t', n: '\n', r: '\r' }

/** Characters that are tried for a negated class. */
const others = ['a', '1', '-', 'A', ' ']

/** Most characters of a text, and most repetitions of a part. */
const maxLength = 1_000

/** Reads a regular expression from left to right, and writes a text that it is likely to match. */
class Sampler {
  readonly #pattern: string
  readonly #repeats: number
  #at = 0

  /** @param repeats - how often a part is repeated that may be repeated without a bound */
  constructor (pattern: string, repeats: number) {
    this.#pattern = pattern
    this.#repeats = repeats
  }

  /** Returns a text for the first alternative, up to the end of the group. */
  alternatives (): string {
    let first: string | undefined
    do {
      const text = this.#sequence()
      first ??= text
    } while (this.#takes('|'))
    return first
  }

  #takes (text: string): boolean {
    const is = this.#pattern.startsWith(text, this.#at)
    if (is) this.#at += text.length
    return is
  }

  #sequence (): string {
    let text = ''
    while (this.#at < this.#pattern.length && !'|)'.includes(this.#pattern[this.#at]!)) {
      const atom = this.#atom()
      text += atom.repeat(Math.min(this.#count(), maxLength))
      if (text.length > maxLength) throw new RangeError('the text becomes too long')
    }
    return text
  }

  #atom (): string {
    const character = this.#pattern[this.#at++]!
    if (character === '\\') return this.#escape()
    if (character === '[') return this.#class()
    if (character === '(') return this.#group()
    if (character === '.') return 'a'
    return character === '^' || character === '$' ? '' : character
  }

  #escape (): string {
    const name = this.#pattern[this.#at++]!
    const code = /^(?:u\{([\da-f]+)\}|u([\da-f]{4})|x([\da-f]{2}))/i.exec(this.#pattern.slice(this.#at - 1))
    if (code !== null) {
      this.#at += code[0].length - 1
      return String.fromCodePoint(parseInt((code[1] ?? code[2] ?? code[3])!, 16))
    }
    if (/^p/i.test(name)) this.#at = this.#pattern.indexOf('}', this.#at) + 1
    return classes[name] ?? (/^p/i.test(name) ? 'a' : name)
  }

  /** Returns a character of a class; of a negated class, one that is likely to be outside. */
  #class (): string {
    const isNegated = this.#takes('^')
    const start = this.#at
    let first: string | undefined
    while (this.#at < this.#pattern.length && this.#pattern[this.#at] !== ']') first ??= this.#atomOfClass()
    const text = this.#pattern.slice(start, this.#at++)
    if (!isNegated) return first ?? ''
    return others.find(character => !new RegExp(`[${text}]`, 'u').test(character)) ?? ''
  }

  #atomOfClass (): string {
    const character = this.#pattern[this.#at++]!
    const text = character === '\\' ? this.#escape() : character
    // Skips the rest of the class, because one character is enough.
    while (this.#at < this.#pattern.length && this.#pattern[this.#at] !== ']') this.#at += this.#pattern[this.#at] === '\\' ? 2 : 1
    return text
  }

  #group (): string {
    const isNegative = this.#takes('?!') || this.#takes('?<!')
    const isAround = isNegative || this.#takes('?=') || this.#takes('?<=')
    if (!isAround && !this.#takes('?:')) {
      const name = /^\?<\w+>/.exec(this.#pattern.slice(this.#at))
      if (name !== null) this.#at += name[0].length
    }
    const text = this.alternatives()
    this.#at++
    return isAround ? '' : text
  }

  #count (): number {
    const quantifier = /^(?:[*+?]|\{(\d+)(,(\d*))?\})\??/.exec(this.#pattern.slice(this.#at))
    if (quantifier === null) return 1
    this.#at += quantifier[0].length
    const [text, least, open, most] = quantifier
    if (least === undefined) return text.startsWith('?') ? 1 : Math.max(1, this.#repeats)
    if (open === undefined) return Number(least)
    return Math.min(Math.max(Number(least), this.#repeats), most === '' || most === undefined ? Infinity : Number(most))
  }
}

/** Returns a text that matches a pattern and has one of these lengths; `undefined` if none is found. */
export function textOfPattern (pattern: string, minimum: number, maximum: number): string | undefined {
  try {
    const expression = new RegExp(pattern, 'u')
    return [1, minimum, maximum, 2, 4, 8, 16].filter(repeats => repeats <= maxLength)
      .map(repeats => new Sampler(pattern, repeats).alternatives())
      .flatMap(text => [text, text.padEnd(minimum, 'a'), text.slice(0, maximum)])
      .find(text => text.length >= minimum && text.length <= maximum && expression.test(text))
  } catch {
    return undefined // the sampler does not know all of the syntax
  }
}
