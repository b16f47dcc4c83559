import { JSDOM } from 'jsdom'
import type { Test } from 'tap'

/**
 * Makes a page with an element `#root`, and its globals. Import this before `react-dom`, which reads them.
 * @param url - the address of the page, where relative URLs begin
 */
export function openPage (url = 'http://127.0.0.1/'): JSDOM {
  const dom = new JSDOM('<!doctype html><div id="root"></div>', { url, pretendToBeVisual: true })
  const { window } = dom
  for (const name of ['window', 'document', 'location', 'navigator', 'FormData', 'Event', 'HTMLElement'] as const) {
    Object.defineProperty(globalThis, name, { value: name === 'window' ? window : window[name], configurable: true, writable: true })
  }
  return dom
}

/** Leads the page to another address. */
export function visit (t: Test, dom: JSDOM, url: string): HTMLElement {
  dom.reconfigure({ url })
  const root = dom.window.document.createElement('div')
  dom.window.document.body.append(root)
  t.teardown(() => { root.remove() })
  return root
}
