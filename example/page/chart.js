/* global document, Intl */

const maxPoints = 40
const maxCharts = 12
const small = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 })
const plain = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 })
const compact = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 2 })
const scientific = new Intl.NumberFormat(undefined, { notation: 'scientific', maximumFractionDigits: 2 })
const times = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' })

/** Formats a number so that it fits into a card. */
function show (value) {
  const size = Math.abs(value)
  const format = size < 1 ? small : size < 1e7 ? plain : size < 1e15 ? compact : scientific
  return format.format(value)
}

/** The hue of a name, in degrees: the same in every browser. */
export function hueOf (name) {
  let hash = 0x811c9dc5 // FNV-1a: names that differ in one letter are far apart
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193)
  return (hash >>> 0) % 360
}

/** Makes an element with a class and text. What came over the network is never read as HTML. */
export function element (tag, className = '', text = '') {
  const node = document.createElement(tag)
  node.className = className
  node.textContent = text
  return node
}

function shape (tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  return node
}

/** One named number: its value now, and the values before it. */
class Chart {
  node = element('article', 'chart')
  points = []
  updated = 0
  #value = element('span', 'value')
  #change = element('span', 'change')
  #plot = shape('svg', { viewBox: '0 0 100 100', preserveAspectRatio: 'none', role: 'img' })
  #area = shape('path', { class: 'area' })
  #curve = shape('path', { class: 'curve' })
  #dot = element('i')
  #from = element('span')
  #to = element('span')
  #name

  constructor (name) {
    this.#name = name
    this.node.dataset.name = name
    this.node.style.setProperty('--hue', hueOf(name))
    const reading = element('p', 'reading')
    reading.append(this.#value, this.#change)
    this.#plot.append(shape('line', { x1: 0, x2: 100, y1: 100, y2: 100 }), shape('line', { x1: 0, x2: 100, y1: 0, y2: 0 }), this.#area, this.#curve)
    const plot = element('div', 'plot')
    plot.append(this.#plot, this.#dot)
    const scale = element('p', 'scale')
    scale.append(this.#from, this.#to)
    this.node.append(element('h3', '', name), reading, plot, scale)
  }

  add (value, at) {
    const time = new Date(at)
    // JSON Schema's date-time allows forms that Date does not read, such as a leap second.
    this.points.push({ value, at: Number.isNaN(time.getTime()) ? new Date() : time })
    this.points.sort((one, other) => one.at - other.at)
    this.points.splice(0, this.points.length - maxPoints)
  }

  draw () {
    const { points } = this
    const values = points.map(point => point.value)
    const [low, high] = [Math.min(...values), Math.max(...values)]
    const last = values.at(-1)
    const before = values.at(-2)
    const x = index => points.length === 1 ? 100 : 100 * index / (points.length - 1)
    const y = value => high === low ? 50 : 94 - 88 * ((value - low) / (high - low))
    const curve = values.map((value, index) => `${index === 0 ? 'M' : 'L'}${x(index).toFixed(2)} ${y(value).toFixed(2)}`).join('')

    this.#curve.setAttribute('d', curve)
    this.#area.setAttribute('d', `${curve}V100H${x(0)}Z`)
    this.#dot.style.left = '100%'
    this.#dot.style.top = `${y(last)}%`
    this.#value.textContent = show(last)
    this.#change.textContent = before === undefined ? '' : last === before ? 'unchanged' : `${last > before ? '▲' : '▼'} ${show(Math.abs(last - before))}`
    this.#from.textContent = low === high ? '' : `${show(low)} to ${show(high)}`
    this.#to.textContent = times.format(points.at(-1).at)
    this.#plot.setAttribute('aria-label', `${this.#name}: ${show(last)}, the last of ${points.length} from ${show(low)} to ${show(high)}`)
  }

  flash () {
    this.node.classList.remove('fresh')
    this.node.getBoundingClientRect() // without this the browser sees no change, and the animation does not start again
    this.node.classList.add('fresh')
  }
}

/** A chart for each name, up to `maxCharts`; a new name then replaces the one that changed longest ago. */
export class Charts {
  #container
  #empty
  #charts = new Map()
  #updates = 0

  constructor (container, empty) {
    this.#container = container
    this.#empty = empty
  }

  /** Removes all charts. */
  reset () {
    for (const { node } of this.#charts.values()) node.remove()
    this.#charts.clear()
    this.#empty.hidden = false
  }

  add (records, fresh = true) {
    const changed = new Set()
    for (const { name, value, at = new Date() } of records) {
      const chart = this.#chart(name)
      chart.updated = ++this.#updates
      chart.add(value, at)
      changed.add(chart)
    }
    for (const chart of changed) {
      chart.draw()
      if (fresh) chart.flash()
    }
    this.#empty.hidden = this.#charts.size > 0
  }

  /** Returns the last value of a name, or `undefined`. */
  last (name) {
    return this.#charts.get(name)?.points.at(-1)?.value
  }

  /** Returns the name of the first chart, or `undefined`. */
  get first () {
    return this.#charts.keys().next().value
  }

  #chart (name) {
    const known = this.#charts.get(name)
    if (known !== undefined) return known
    if (this.#charts.size === maxCharts) {
      const [oldest, chart] = [...this.#charts].reduce((one, other) => one[1].updated < other[1].updated ? one : other)
      chart.node.remove()
      this.#charts.delete(oldest)
    }
    const chart = new Chart(name)
    this.#charts.set(name, chart)
    this.#container.append(chart.node)
    return chart
  }
}
