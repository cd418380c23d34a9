// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exports the memory of a PCI device (QEMU's ivshmem: BAR 2) as dma-bufs that other devices reach peer to peer.
 *
 * An importer whose way to the device the kernel does not vouch for (pci_p2pdma_distance() < 0; always so where
 * CONFIG_PCI_P2PDMA is off) gets pages of system memory instead: filled when it maps, written back when it unmaps.
 *
 * All dma-bufs of a device share one reservation lock. Under it mappings are made and used, and the device goes: an
 * importer never holds a mapping of a device that is gone.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "p2p_uapi.h"

#define P2P_MEM_BAR	2

struct p2p_mem {
	struct kref ref;	/* one for the device, each open file and each buffer */
	struct pci_dev *pdev;
	struct miscdevice misc;
	void __iomem *base;	/* valid while !gone */
	phys_addr_t phys;
	size_t size;
	struct dma_resv resv;	/* guards bufs and gone, and all mappings */
	struct list_head bufs;
	bool gone;
};

struct p2p_buf {
	struct p2p_mem *mem;
	struct list_head node;
	struct dma_buf *dmabuf;
	size_t offset;
	size_t size;
};

/* A mapping; pages is NULL for one from device to device. */
struct p2p_map {
	struct sg_table sgt;
	struct page **pages;
	unsigned int count;
};

static void p2p_mem_free(struct kref *ref)
{
	struct p2p_mem *mem = container_of(ref, struct p2p_mem, ref);

	dma_resv_fini(&mem->resv);
	pci_dev_put(mem->pdev);
	kfree(mem);
}

static void p2p_mem_put(struct p2p_mem *mem)
{
	kref_put(&mem->ref, p2p_mem_free);
}

/* The buffer's bytes into its pages, or back. */
static void p2p_copy(struct p2p_buf *buf, struct p2p_map *map, bool to_pages)
{
	void __iomem *from = buf->mem->base + buf->offset;
	unsigned int i;

	for (i = 0; i < map->count; i++, from += PAGE_SIZE) {
		if (to_pages)
			memcpy_fromio(page_address(map->pages[i]), from, PAGE_SIZE);
		else
			memcpy_toio(from, page_address(map->pages[i]), PAGE_SIZE);
	}
}

static void p2p_free_pages(struct p2p_map *map)
{
	unsigned int i;

	for (i = 0; i < map->count; i++)
		if (map->pages[i])
			__free_page(map->pages[i]);
	kvfree(map->pages);
}

static int p2p_map_bounce(struct p2p_buf *buf, struct device *dev, struct p2p_map *map, enum dma_data_direction dir)
{
	unsigned int i;
	int ret = -ENOMEM;

	map->count = buf->size >> PAGE_SHIFT;
	map->pages = kvcalloc(map->count, sizeof(*map->pages), GFP_KERNEL);
	if (!map->pages)
		return -ENOMEM;
	for (i = 0; i < map->count; i++) {
		map->pages[i] = alloc_page(GFP_KERNEL);
		if (!map->pages[i])
			goto free;
	}
	/* An engine may write a part only, so the rest must be right in either direction. */
	p2p_copy(buf, map, true);
	ret = sg_alloc_table_from_pages(&map->sgt, map->pages, map->count, 0, buf->size, GFP_KERNEL);
	if (ret)
		goto free;
	ret = dma_map_sgtable(dev, &map->sgt, dir, 0);
	if (!ret)
		return 0;
	sg_free_table(&map->sgt);
free:
	p2p_free_pages(map);
	return ret;
}

static int p2p_map_peer(struct p2p_buf *buf, struct device *dev, struct p2p_map *map, enum dma_data_direction dir)
{
	dma_addr_t addr;
	int ret;

	ret = sg_alloc_table(&map->sgt, 1, GFP_KERNEL);
	if (ret)
		return ret;
	addr = dma_map_resource(dev, buf->mem->phys + buf->offset, buf->size, dir, DMA_ATTR_SKIP_CPU_SYNC);
	ret = dma_mapping_error(dev, addr);
	if (ret) {
		sg_free_table(&map->sgt);
		return ret;
	}
	/* There are no pages behind it: only the bus address counts. */
	sg_set_page(map->sgt.sgl, NULL, buf->size, 0);
	sg_dma_address(map->sgt.sgl) = addr;
	sg_dma_len(map->sgt.sgl) = buf->size;
	return 0;
}

static int p2p_buf_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct p2p_buf *buf = dmabuf->priv;

	if (READ_ONCE(buf->mem->gone))
		return -ENODEV;
	if (attach->peer2peer && pci_p2pdma_distance(buf->mem->pdev, attach->dev, false) < 0)
		attach->peer2peer = false;
	return 0;
}

/*
 * The memory never moves, but the device may go at any time: importers that cannot follow an invalidation are refused.
 * Without CONFIG_DMABUF_MOVE_NOTIFY older kernels pin for each mapping of the others, too.
 */
static int p2p_buf_pin(struct dma_buf_attachment *attach)
{
	return attach->importer_ops ? 0 : -EOPNOTSUPP;
}

static void p2p_buf_unpin(struct dma_buf_attachment *attach)
{
}

static struct sg_table *p2p_buf_map(struct dma_buf_attachment *attach, enum dma_data_direction dir)
{
	struct p2p_buf *buf = attach->dmabuf->priv;
	struct p2p_map *map;
	int ret;

	dma_resv_assert_held(attach->dmabuf->resv);
	if (buf->mem->gone)
		return ERR_PTR(-ENODEV);
	map = kzalloc(sizeof(*map), GFP_KERNEL);
	if (!map)
		return ERR_PTR(-ENOMEM);
	if (attach->peer2peer)
		ret = p2p_map_peer(buf, attach->dev, map, dir);
	else
		ret = p2p_map_bounce(buf, attach->dev, map, dir);
	if (ret) {
		kfree(map);
		return ERR_PTR(ret);
	}
	return &map->sgt;
}

static void p2p_buf_unmap(struct dma_buf_attachment *attach, struct sg_table *sgt, enum dma_data_direction dir)
{
	struct p2p_map *map = container_of(sgt, struct p2p_map, sgt);
	struct p2p_buf *buf = attach->dmabuf->priv;

	if (map->pages) {
		dma_unmap_sgtable(attach->dev, sgt, dir, 0);
		if (dir != DMA_TO_DEVICE && !buf->mem->gone)
			p2p_copy(buf, map, false);
		p2p_free_pages(map);
	} else {
		dma_unmap_resource(attach->dev, sg_dma_address(sgt->sgl), buf->size, dir, DMA_ATTR_SKIP_CPU_SYNC);
	}
	sg_free_table(sgt);
	kfree(map);
}

static void p2p_buf_release(struct dma_buf *dmabuf)
{
	struct p2p_buf *buf = dmabuf->priv;
	struct p2p_mem *mem = buf->mem;

	dma_resv_lock(&mem->resv, NULL);
	list_del(&buf->node);
	dma_resv_unlock(&mem->resv);
	kfree(buf);
	p2p_mem_put(mem);
}

static const struct dma_buf_ops p2p_buf_ops = {
	.attach = p2p_buf_attach,
	.pin = p2p_buf_pin,
	.unpin = p2p_buf_unpin,
	.map_dma_buf = p2p_buf_map,
	.unmap_dma_buf = p2p_buf_unmap,
	.release = p2p_buf_release,
};

/* Whether [offset, offset + size) is whole pages within the memory. */
static bool p2p_in_range(struct p2p_mem *mem, u64 offset, u64 size)
{
	return size && PAGE_ALIGNED(offset) && PAGE_ALIGNED(size) && offset < mem->size && size <= mem->size - offset;
}

static struct dma_buf *p2p_buf_create(struct p2p_mem *mem, size_t offset, size_t size)
{
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dmabuf;
	struct p2p_buf *buf;

	buf = kzalloc(sizeof(*buf), GFP_KERNEL);
	if (!buf)
		return ERR_PTR(-ENOMEM);
	buf->mem = mem;
	buf->offset = offset;
	buf->size = size;
	info.ops = &p2p_buf_ops;
	info.size = size;
	info.flags = O_RDWR | O_CLOEXEC;
	info.resv = &mem->resv;
	info.priv = buf;

	dma_resv_lock(&mem->resv, NULL);
	dmabuf = mem->gone ? ERR_PTR(-ENODEV) : dma_buf_export(&info);
	if (!IS_ERR(dmabuf)) {
		kref_get(&mem->ref);
		buf->dmabuf = dmabuf;
		list_add(&buf->node, &mem->bufs);
	}
	dma_resv_unlock(&mem->resv);
	if (IS_ERR(dmabuf))
		kfree(buf);
	return dmabuf;
}

static long p2p_mem_export(struct p2p_mem *mem, struct p2p_mem_export __user *arg)
{
	struct p2p_mem_export request;
	struct dma_buf *dmabuf;
	int fd;

	if (copy_from_user(&request, arg, sizeof(request)))
		return -EFAULT;
	if (!request.size && request.offset < mem->size)
		request.size = mem->size - request.offset;
	if (request.flags || !p2p_in_range(mem, request.offset, request.size))
		return -EINVAL;
	dmabuf = p2p_buf_create(mem, request.offset, request.size);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	fd = dma_buf_fd(dmabuf, O_CLOEXEC);
	if (fd < 0) {
		dma_buf_put(dmabuf);
		return fd;
	}
	/* From here on the buffer is user space's; a bad pointer leaves it a descriptor that it does not know. */
	return put_user(fd, &arg->fd);
}

static long p2p_mem_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct p2p_mem *mem = file->private_data;

	switch (command) {
	case P2P_MEM_EXPORT:
		return p2p_mem_export(mem, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

/* One page at most: the callers' loops are user space's. */
static ssize_t p2p_mem_access(struct p2p_mem *mem, char __user *user, size_t count, loff_t *pos, bool write)
{
	ssize_t ret;
	void *page;

	if (*pos < 0 || *pos >= mem->size)
		return 0;
	count = min3(count, (size_t)PAGE_SIZE, (size_t)(mem->size - *pos));
	page = (void *)__get_free_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	ret = -EFAULT;
	if (write && copy_from_user(page, user, count))
		goto out;
	dma_resv_lock(&mem->resv, NULL);
	ret = mem->gone ? -ENODEV : count;
	if (ret > 0 && write)
		memcpy_toio(mem->base + *pos, page, count);
	else if (ret > 0)
		memcpy_fromio(page, mem->base + *pos, count);
	dma_resv_unlock(&mem->resv);
	if (ret > 0 && !write && copy_to_user(user, page, count))
		ret = -EFAULT;
	if (ret > 0)
		*pos += ret;
out:
	free_page((unsigned long)page);
	return ret;
}

static ssize_t p2p_mem_read(struct file *file, char __user *user, size_t count, loff_t *pos)
{
	return p2p_mem_access(file->private_data, user, count, pos, false);
}

static ssize_t p2p_mem_write(struct file *file, const char __user *user, size_t count, loff_t *pos)
{
	return p2p_mem_access(file->private_data, (char __user *)user, count, pos, true);
}

/* misc_open() holds misc_mtx, which misc_deregister() takes: the device is there. */
static int p2p_mem_open(struct inode *inode, struct file *file)
{
	struct p2p_mem *mem = container_of(file->private_data, struct p2p_mem, misc);

	kref_get(&mem->ref);
	file->private_data = mem;
	return 0;
}

static int p2p_mem_release(struct inode *inode, struct file *file)
{
	p2p_mem_put(file->private_data);
	return 0;
}

static const struct file_operations p2p_mem_fops = {
	.owner = THIS_MODULE,
	.open = p2p_mem_open,
	.release = p2p_mem_release,
	.read = p2p_mem_read,
	.write = p2p_mem_write,
	.llseek = default_llseek,
	.unlocked_ioctl = p2p_mem_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static int p2p_mem_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct p2p_mem *mem;
	void __iomem *base;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	base = pcim_iomap_region(pdev, P2P_MEM_BAR, "p2p_mem");
	if (IS_ERR(base))
		return dev_err_probe(&pdev->dev, PTR_ERR(base), "no memory behind BAR %d\n", P2P_MEM_BAR);
	mem = kzalloc(sizeof(*mem), GFP_KERNEL);
	if (!mem)
		return -ENOMEM;
	kref_init(&mem->ref);
	INIT_LIST_HEAD(&mem->bufs);
	dma_resv_init(&mem->resv);
	mem->pdev = pci_dev_get(pdev);
	mem->base = base;
	mem->phys = pci_resource_start(pdev, P2P_MEM_BAR);
	mem->size = pci_resource_len(pdev, P2P_MEM_BAR);
	mem->misc.minor = MISC_DYNAMIC_MINOR;
	mem->misc.name = "p2p_mem";
	mem->misc.fops = &p2p_mem_fops;
	mem->misc.parent = &pdev->dev;
	pci_set_drvdata(pdev, mem);
	ret = misc_register(&mem->misc);
	if (ret)
		p2p_mem_put(mem);
	else
		pci_info(pdev, "%zu KiB to be exported\n", mem->size >> 10);
	return ret;
}

static void p2p_mem_remove(struct pci_dev *pdev)
{
	struct p2p_mem *mem = pci_get_drvdata(pdev);
	struct p2p_buf *buf;

	misc_deregister(&mem->misc);
	dma_resv_lock(&mem->resv, NULL);
	mem->gone = true;
	list_for_each_entry(buf, &mem->bufs, node)
		dma_buf_invalidate_mappings(buf->dmabuf);
	dma_resv_unlock(&mem->resv);
	p2p_mem_put(mem);
}

static const struct pci_device_id p2p_mem_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110) },
	{ }
};
MODULE_DEVICE_TABLE(pci, p2p_mem_ids);

static struct pci_driver p2p_mem_driver = {
	.name = "p2p_mem",
	.id_table = p2p_mem_ids,
	.probe = p2p_mem_probe,
	.remove = p2p_mem_remove,
};
module_pci_driver(p2p_mem_driver);

MODULE_DESCRIPTION("dma-buf exporter for a PCI device's memory");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
