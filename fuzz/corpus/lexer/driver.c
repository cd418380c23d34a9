// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#define TWICE(x, ...) ((x) + \
	(x)) /* a
comment */
static const char s[] = "a \"quoted\" text\n" L"wide" 'c' '\'' "\xff";
struct ops { int (*probe)(struct dev *dev, int a[3]); unsigned bits : 3, more; union { long l; }; };
static int f(struct dev *dev) { return dev->field ? 0x1fUL : 1.5e-3f; } // end
