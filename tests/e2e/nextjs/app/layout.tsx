import type { Metadata } from "next";
import Link from "next/link";
import type { ReactNode } from "react";

import "./page.css";

export const metadata: Metadata = {
  title: "Desk",
  // An empty icon, because a request for a missing one would log an error in the console.
  icons: { icon: "data:," },
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <nav>
          <Link href="/">URL set per request</Link> <Link href="/public">URL set at build time</Link>
        </nav>
        {children}
      </body>
    </html>
  );
}
