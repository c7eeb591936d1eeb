import type { Metadata } from "next";
import Link from "next/link";
import type { ReactNode } from "react";

import "./page.css";

export const metadata: Metadata = {
  title: "Desk",
  // No icon: a browser would ask for one that is not there, and say so in its console.
  icons: { icon: "data:," },
};

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>
        <nav>
          <Link href="/">Address of the request</Link> <Link href="/public">Address of the build</Link>
        </nav>
        {children}
      </body>
    </html>
  );
}
