import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PAGES = join(HERE, "..", "functions", "web", "pages");
const COMPRESSED = /\.(?:css|html|js|svg)$/;
const TAG = /<(?:script|link)[^>]*? (?:src|href)="(\/assets\/[^"]+\.(?:js|css))"[^>]*>/g;

/** Adds integrity to the scripts and style sheets of each page, and compresses every text file. */
function finished(): Plugin {
  return {
    name: "finished-pages",
    apply: "build",
    async closeBundle() {
      for (const name of await readdir(PAGES)) {
        if (name.endsWith(".html")) await addIntegrity(join(PAGES, name));
      }
      const files = await readdir(PAGES, { recursive: true });
      await Promise.all(
        files.filter((name) => COMPRESSED.test(name)).map((name) => compress(join(PAGES, name))),
      );
    },
  };
}

async function addIntegrity(page: string): Promise<void> {
  const html = await readFile(page, "utf8");
  const digests = new Map<string, string>();
  for (const [, path] of html.matchAll(TAG)) {
    const content = await readFile(join(PAGES, path!));
    digests.set(path!, createHash("sha384").update(content).digest("base64"));
  }
  const marked = html.replace(TAG, (tag, path: string) =>
    tag.replace(/>$/, ` integrity="sha384-${digests.get(path)!}">`),
  );
  await writeFile(page, marked);
}

async function compress(file: string): Promise<void> {
  const content = await readFile(file);
  const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
  await writeFile(`${file}.gz`, gzipSync(content, { level: 9 }));
  await writeFile(`${file}.br`, brotliCompressSync(content, { params: quality }));
}

export default defineConfig({
  plugins: [finished()],
  resolve: { alias: { "@shared": join(HERE, "src", "shared") } },
  build: {
    outDir: PAGES,
    emptyOutDir: true,
    target: "es2022",
    // the policy of the pages allows no data: URLs
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: ["storefront", "admin", "live"].map((name) => join(HERE, `${name}.html`)),
    },
  },
  test: { environment: "happy-dom", include: ["tests/**/*.test.{ts,tsx}"] },
});
